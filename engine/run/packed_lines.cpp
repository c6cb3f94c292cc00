#include "engine/run/packed_lines.h"

#include <utility>

namespace carousel {
namespace {

// Short lines share a batch, and a single one costs no more than B·T steps. A long one would leave
// the other rows of a batch empty: it has one row and long windows.
constexpr std::size_t kLong = 2048;
constexpr std::int64_t kRows = 32, kSteps = 16, kLongSteps = 512;

}  // namespace

std::vector<PackedLines> packed_lines(std::span<const LineIds> lines) {
  PackedLines packed[] = {
      {.rows = kRows, .steps = kSteps, .numbers = {}, .lengths = {}, .tokens = {}},
      {.rows = 1, .steps = kLongSteps, .numbers = {}, .lengths = {}, .tokens = {}}};
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const LineIds& line = lines[i];
    if (line.empty()) continue;
    PackedLines& to = packed[line.size() < kLong ? 0 : 1];
    to.numbers.push_back(i);
    to.lengths.push_back(static_cast<std::int32_t>(line.size()));
    to.tokens.insert(to.tokens.end(), line.begin(), line.end());
  }
  std::vector<PackedLines> result;
  for (PackedLines& some : packed) {
    if (!some.tokens.empty()) result.push_back(std::move(some));
  }
  return result;
}

}  // namespace carousel
