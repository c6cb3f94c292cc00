#include "engine/data/pair_reader.h"

#include <fmt/format.h>

#include <string>

namespace carousel {
namespace {

/// What the line has on this side. FormatError if it is no pair.
std::string_view part_of(std::string_view line, const PairSide& side, const LinePlace& place) {
  constexpr const char* kExpected = ", expected source<TAB>target";
  if (side.part == PairSide::Part::line) return line;
  if (line.empty()) place.fail(std::string("the line is empty") + kExpected);
  const std::size_t tab = line.find('\t');
  if (tab == std::string_view::npos) place.fail(shown(line) + " has no tab" + kExpected);
  return side.part == PairSide::Part::source
             ? line.substr(0, tab)
             : line.substr(tab + 1, line.find('\t', tab + 1) - tab - 1);
}

}  // namespace

std::vector<PairSide> sides_of(const PairTexts& texts) {
  using enum PairSide::Part;
  if (texts.targets) return {{"source", texts.sources}, {"token", *texts.targets}};
  return {{"source", texts.sources, source}, {"token", texts.sources, target}};
}

PairCounts read_side(const PairSide& side, const TokenRules& rules, const PairTaker& to) {
  LineCutter cutter(rules, side.text.name());
  std::int64_t further = 0;
  const auto read_line = [&](std::string_view line, const LinePlace& place) {
    const std::string_view text = part_of(line, side, place);
    const auto start = static_cast<std::int64_t>(text.data() - line.data());
    TokenSink& sink = to.begin(place.line - 1, text);
    const std::int64_t characters = cutter.cut(text, place.byte + start, sink);
    if (characters == 0 && side.may_be_empty) {
      sink.begin_line();
      sink.end_line();
    } else if (characters == 0) {
      place.fail(fmt::format(
          "the {} is empty, expected {}",
          side.column == std::string_view("token") ? "target" : "source",
          side.part == PairSide::Part::line ? "a text on each line" : "source<TAB>target"));
    }
    to.end(characters);
    if (side.part == PairSide::Part::target &&
        text.data() + text.size() < line.data() + line.size()) {
      ++further;
    }
  };
  const LinePlace last = read_lines(side.text, read_line);
  if (last.line == 0) last.fail("no pairs");  // a byte order mark alone
  return {last, further};
}

}  // namespace carousel
