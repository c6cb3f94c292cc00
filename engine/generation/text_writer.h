#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/generation/generator.h"
#include "engine/generation/tidy_text.h"
#include "engine/text/vocabulary.h"

namespace carousel {

/// Why a text ended: it has as many tokens as were asked for, its line is over, one of the stop texts
/// came, or the caller wanted no more.
enum class TextEnd : std::uint8_t { length, line, stop, interrupted };

/// Finds the first of several texts in a text that comes in pieces.
class StopSearch {
 public:
  explicit StopSearch(const std::vector<std::string>& stops) : stops_(stops) {}

  /// What may be shown with this piece: all that is before a stop text and cannot begin one.
  std::string next(std::string_view piece);
  bool found() const { return found_; }
  std::string finish();  ///< what was held back; afterwards another text may begin

 private:
  const std::vector<std::string>& stops_;
  std::string held_;
  bool found_ = false;
};

/// What is written: how tokens are chosen, and what ends a text. A line always ends one for a model
/// of lines.
struct WritingOptions {
  SamplingConfig sampling{};        ///< its suppressed token is <unk>
  std::int64_t tokens = 200;        ///< of each text, at most
  bool graph = true;                ///< on CUDA, a step is one graph; the same texts
  std::vector<std::string> stop{};  ///< these end it, and do not belong to it; none is empty
  bool tidy = false;                ///< of words: blanks and capitals as people write (TidyText)
};

/// Texts that a model writes side by side, each with random numbers of its own.
class TextWriter {
 public:
  TextWriter(Model& model, const Vocabulary& vocabulary, const WritingOptions& options,
             std::int64_t rows = 1);
  TextWriter(const TextWriter&) = delete;  // what decodes refers to the options
  TextWriter& operator=(const TextWriter&) = delete;

  /// Begins all texts anew with the same prompt (encode_prompt()), which may be empty. A model of
  /// lines reads <bos> first.
  void begin(const std::vector<std::int32_t>& prompt);
  /// Reads a prompt, which may be empty, after what was read and written, with the state kept. A
  /// stream gets the end of a line in between.
  void go_on(const std::vector<std::int32_t>& prompt);

  using Show = std::function<void(std::size_t row, std::string_view piece)>;
  using Proceed = std::function<bool()>;
  /// Writes until all texts have ended. `show` gets what comes of them, in whole UTF-8 sequences and
  /// without the newline that ends a line; `proceed` is called after each token, and false ends all.
  void write(
      const Show& show, const Proceed& proceed = [] { return true; });
  const std::string& graph_refusal() const { return generator_.refusal(); }
  /// After write().
  TextEnd end(std::size_t row) const { return texts_[row].end; }

 private:
  struct Row {
    Row(const Vocabulary& vocabulary, const std::vector<std::string>& stop)
        : decoder(vocabulary), stops(stop) {}
    TextDecoder decoder;
    TidyText tidy;
    StopSearch stops;
    bool ended = false;
    TextEnd end = TextEnd::length;
  };
  void read(std::vector<std::int32_t> prompt, bool anew);
  void take(std::size_t row, std::int32_t id, const Show& show);
  /// Reads a prompt into a text that goes on behind it.
  void put_behind(const std::vector<std::int32_t>& prompt, Row& text) const;
  std::string tidied(std::string piece, Row& text) const {
    return options_.tidy ? text.tidy.next(piece) : piece;
  }

  const Vocabulary& vocabulary_;
  const WritingOptions options_;
  Generator generator_;
  std::vector<Row> texts_;
  std::int32_t last_ = -1;  ///< of the first row: what the model read last
};

}  // namespace carousel
