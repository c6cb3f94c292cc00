#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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

/// Where a line of a text begins, for errors.
struct LinePlace {
  std::string name;  ///< of the text
  std::int64_t line = 0, byte = 0;
  /// FormatError that begins with the place.
  [[noreturn]] void fail(const std::string& what) const;
};

/// Passes on a text line by line, without the newlines; a last line may lack its own. Returns the
/// place of the last, which is line 0 of a text that is a byte order mark alone. Errors as
/// Text::read(), and FormatError for a line of more than 16 MiB.
LinePlace read_lines(const Text& text,
                     const std::function<void(std::string_view line, const LinePlace&)>& take);

/// Cuts lines of a text, or parts of them, into tokens, each for a sink of its own.
class LineCutter {
 public:
  LineCutter(const TokenRules& rules, std::string name)
      : tokenizer_(rules, std::move(name), relay_) {}
  /// Cuts what stands at this byte of the text's next line, as a line of its own. Returns its
  /// characters with an end of line; 0 if it has no tokens: nothing was passed on.
  std::int64_t cut(std::string_view text, std::int64_t byte, TokenSink& sink);

 private:
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
  Relay relay_;
  Tokenizer tokenizer_;
};

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
  [[noreturn]] void fail(const std::string& what) const { place_.fail(what); }

 private:
  void read(const LabelledText& text);
  void read_example(std::string_view line, const std::optional<std::string>& label,
                    LineCutter& cutter);

  TokenRules rules_;
  LinePlace place_;
};

}  // namespace carousel
