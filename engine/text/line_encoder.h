#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokens.h"

namespace carousel {

/// The ids of a text's lines, one line at a time. Errors as Tokenizer's tell line and byte of the
/// text.
class LineEncoder {
 public:
  enum class End : std::uint8_t {
    closed,  ///< as in a file: with what a newline is to the vocabulary, a character or <eos>
    open     ///< as a prompt, which is meant to go on: without
  };
  LineEncoder(const Vocabulary& vocabulary, std::string name, End end);

  /// The ids of the next line, which ends in its newline unless it is a last one without. A line
  /// without tokens, and under Newline::line one of white space, has none.
  std::vector<std::int32_t> next(std::string_view line);

 private:
  MemoryTokenWriter writer_;
  Tokenizer tokenizer_;
  End end_;
};

}  // namespace carousel
