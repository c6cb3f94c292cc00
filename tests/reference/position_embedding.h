#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace carousel::reference {

/// The sinusoid of a position.
inline std::vector<double> sinusoid(double position, std::size_t width) {
  std::vector<double> row;
  for (std::size_t e = 0; e < width; ++e) {
    const double exponent = static_cast<double>(e - e % 2) / static_cast<double>(width);
    const double angle = position / std::pow(10'000.0, exponent);
    row.push_back(e % 2 == 0 ? std::sin(angle) : std::cos(angle));
  }
  return row;
}

/// Row `position` of a table of rows of `width`; NaN where there is none.
inline std::vector<double> table_row(const std::vector<double>& table, long position,
                                     std::size_t width) {
  const auto rows = static_cast<long>(table.size() / width);
  if (position < 0 || position >= rows) return std::vector<double>(width, NAN);
  const auto first = table.begin() + position * static_cast<long>(width);
  return {first, first + static_cast<long>(width)};
}

}  // namespace carousel::reference
