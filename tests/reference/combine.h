#pragma once

#include <cstddef>
#include <vector>

namespace carousel::reference {

/// Some columns of a matrix.
struct Columns {
  std::vector<double> values;
  std::size_t row_width, first;
};

/// `to` as it is after `width` columns of `from` are added to it, or written over it.
inline std::vector<double> copy_columns(const Columns& from, const Columns& to, std::size_t width,
                                        bool accumulate) {
  std::vector<double> result = to.values;
  for (std::size_t n = 0; n < result.size(); ++n) {
    const std::size_t row = n / to.row_width, column = n % to.row_width;
    if (column < to.first || column >= to.first + width) continue;
    const double x = from.values[row * from.row_width + from.first + (column - to.first)];
    result[n] = accumulate ? result[n] + x : x;
  }
  return result;
}

inline std::vector<double> add(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> y;
  for (std::size_t n = 0; n < a.size(); ++n) y.push_back(a[n] + b[n]);
  return y;
}

}  // namespace carousel::reference
