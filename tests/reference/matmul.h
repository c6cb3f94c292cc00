#pragma once

#include <cstddef>
#include <vector>

namespace carousel::reference {

/// A matrix in the order it is stored, and whether a product sees its transpose.
struct Matrix {
  std::size_t rows = 0, columns = 0;
  std::vector<double> values;
  bool transpose = false;

  std::size_t height() const { return transpose ? columns : rows; }
  std::size_t width() const { return transpose ? rows : columns; }
  double operator()(std::size_t i, std::size_t j) const {
    return transpose ? values[j * columns + i] : values[i * columns + j];
  }
};

/// c[i,j] = before[i,j] + Σ_l A[i,l]·B[l,j] + bias[j]; an empty `before` or `bias` is 0.
inline std::vector<double> matmul(const Matrix& a, const Matrix& b, const std::vector<double>& bias,
                                  const std::vector<double>& before) {
  std::vector<double> c;
  for (std::size_t i = 0; i < a.height(); ++i) {
    for (std::size_t j = 0; j < b.width(); ++j) {
      double sum = before.empty() ? 0 : before[i * b.width() + j];
      for (std::size_t l = 0; l < a.width(); ++l) sum += a(i, l) * b(l, j);
      c.push_back(bias.empty() ? sum : sum + bias[j]);
    }
  }
  return c;
}

}  // namespace carousel::reference
