#pragma once

#include <cstddef>
#include <vector>

#include "tests/reference/activation.h"

namespace carousel::reference {

/// f(a) ∘ b of a row [a, b].
inline std::vector<double> gated_activation(Activation kind, const std::vector<double>& row) {
  const std::size_t half = row.size() / 2;
  std::vector<double> y;
  for (std::size_t c = 0; c < half; ++c) y.push_back(activated(kind, row[c]).value * row[half + c]);
  return y;
}

/// What d_y gives the row.
inline std::vector<double> gated_activation_backward(Activation kind,
                                                     const std::vector<double>& row,
                                                     const std::vector<double>& d_y) {
  const std::size_t half = row.size() / 2;
  std::vector<double> d_row(row.size());
  for (std::size_t c = 0; c < half; ++c) {
    const auto [value, slope] = activated(kind, row[c]);
    d_row[c] = slope * row[half + c] * d_y[c];
    d_row[half + c] = value * d_y[c];
  }
  return d_row;
}

}  // namespace carousel::reference
