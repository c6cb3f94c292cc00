#include "kernels/common/alias_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "kernels/common/check.h"

namespace carousel {
namespace {

std::int64_t packed(double keep, std::size_t alias) {
  constexpr auto kMost = static_cast<double>(std::numeric_limits<std::uint32_t>::max());
  const auto threshold =
      static_cast<std::uint64_t>(std::clamp(std::round(keep * 0x1p32), 0.0, kMost));
  return static_cast<std::int64_t>(threshold << 32U | alias);
}

/// The sum of the weights.
double checked_sum(std::span<const double> weight) {
  const std::size_t most = std::numeric_limits<std::int32_t>::max();
  if (weight.empty() || weight.size() > most) {
    throw ConfigError(
        fmt::format("alias_table: {} weights, expected 1 to {}", weight.size(), most));
  }
  double sum = 0;
  for (std::size_t v = 0; v < weight.size(); ++v) {
    if (!(weight[v] >= 0 && std::isfinite(weight[v]))) {  // written so that NaN fails
      throw ConfigError(fmt::format(
          "alias_table: weight {} is {}, expected a finite number of at least 0", v, weight[v]));
    }
    sum += weight[v];
  }
  if (!(sum > 0 && std::isfinite(sum))) {
    throw ConfigError(
        fmt::format("alias_table: the weights add up to {}, expected a positive number", sum));
  }
  return sum;
}

}  // namespace

std::vector<std::int64_t> alias_columns(std::span<const double> weight) {
  const double scale = static_cast<double>(weight.size()) / checked_sum(weight);
  std::vector<double> share(weight.size());  // of a column's 1 that is still to be placed
  std::vector<std::size_t> less, more;
  for (std::size_t v = 0; v < weight.size(); ++v) {
    share[v] = weight[v] * scale;
    (share[v] < 1 ? less : more).push_back(v);
  }
  std::vector<std::int64_t> columns(weight.size());
  while (!less.empty() && !more.empty()) {
    const std::size_t small = less.back(), large = more.back();
    less.pop_back();
    columns[small] = packed(share[small], large);
    share[large] -= 1 - share[small];
    if (share[large] < 1) {
      more.pop_back();
      less.push_back(large);
    }
  }
  // What is left is 1 but for rounding; of a word of weight 0 no share can be left.
  for (const std::size_t v : more) columns[v] = packed(1, v);
  const auto heaviest =
      static_cast<std::size_t>(std::max_element(weight.begin(), weight.end()) - weight.begin());
  for (const std::size_t v : less) {
    columns[v] = weight[v] > 0 ? packed(1, v) : packed(0, heaviest);
  }
  return columns;
}

}  // namespace carousel
