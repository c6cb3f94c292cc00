#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/data/example_reader.h"

namespace carousel {

/// The texts of pairs: a file of lines source<TAB>target, or two files of as many lines.
struct PairTexts {
  Text sources;                   ///< with both columns if there are no targets
  std::optional<Text> targets{};  ///< line i belongs to line i of the sources
};

/// One side of pairs: the lines of a text, or one column of them.
struct PairSide {
  enum class Part : std::uint8_t { line, source, target };
  const char* column = nullptr;  ///< of the data: "source", "token"
  Text text;
  Part part = Part::line;
  bool may_be_empty = false;  ///< a line without tokens is <bos> <eos>, so that it has an answer
};

/// The sides of pairs: first the sources, then the targets.
std::vector<PairSide> sides_of(const PairTexts& texts);

/// What is done with a side, text by text.
struct PairTaker {
  /// Returns what the tokens of this text go to.
  std::function<TokenSink&(std::int64_t number, std::string_view text)> begin;
  std::function<void(std::int64_t characters)> end = [](std::int64_t) {};
};

/// What was read of a side.
struct PairCounts {
  LinePlace last;            ///< of its lines
  std::int64_t further = 0;  ///< lines with more than two columns
};

/// Reads a side and cuts it into tokens. FormatError, with file, line and byte, for a line that is
/// no pair: without a tab, without a source or a target unless they may be empty, not UTF-8; for a
/// text without lines.
PairCounts read_side(const PairSide& side, const TokenRules& rules, const PairTaker& to);

}  // namespace carousel
