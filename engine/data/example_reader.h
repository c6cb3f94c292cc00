#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace carousel {

/// A text whose lines are examples: of this label, or each after its own and a tab.
struct LabelledText {
  Text text;
  std::optional<std::string> label{};
};

/// What is wrong with a label, or null.
const char* fault_of(std::string_view label);

/// The beginning of what is in a text, for an error.
std::string shown(std::string_view text);

/// Reads texts example by example, and cuts each into tokens.
class ExampleReader {
 public:
  explicit ExampleReader(const TokenRules& rules) : rules_(rules) {}
  virtual ~ExampleReader() = default;
  /// FormatError if there is no example.
  void read(const std::vector<LabelledText>& texts);

 protected:
  /// Takes an example's label; returns what its tokens go to.
  virtual TokenSink& begin(std::string_view label) = 0;
  virtual void end(std::int64_t /*characters*/) {}
  /// FormatError that begins with the place of the example.
  [[noreturn]] void fail(const std::string& what) const;

 private:
  /// Passes on the tokens of one example.
  struct Relay final : TokenSink {
    bool token(std::string_view text) override { return to->token(text); }
    void begin_line() override {
      empty = false;
      to->begin_line();
    }
    void end_line() override { to->end_line(); }
    TokenSink* to = nullptr;
    bool empty = true;
  };
  void read(const LabelledText& text);
  void read_example(std::string_view line, const std::optional<std::string>& label,
                    Tokenizer& tokenizer);

  TokenRules rules_;
  Relay relay_;
  std::string name_;
  std::int64_t line_ = 0, byte_ = 0;
};

}  // namespace carousel
