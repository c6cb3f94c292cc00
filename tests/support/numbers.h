#pragma once

#include <cstddef>
#include <functional>
#include <random>
#include <vector>

#include "tests/support/buffer.h"

namespace carousel::test {

/// Numbers in ±bound, as T stores them.
template <class T>
std::vector<double> random_numbers(std::size_t count, double bound, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> number(-bound, bound);
  std::vector<double> values(count);
  for (double& v : values) v = number(engine);
  return as_double(stored<T>(values));
}

/// A buffer to add to, or one to overwrite if there is nothing `before`.
template <class T>
Buffer<T> gradient_buffer(const Device& device, const std::vector<double>& before,
                          std::size_t size) {
  return before.empty() ? Buffer<T>(device, size) : Buffer<T>(device, stored<T>(before));
}

/// Σ a ∘ b.
inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

/// The gradient of loss(x) by central differences.
inline std::vector<double> central_differences(
    const std::vector<double>& x, const std::function<double(const std::vector<double>&)>& loss) {
  constexpr double kStep = 1e-5;
  std::vector<double> gradient;
  for (std::size_t i = 0; i < x.size(); ++i) {
    std::vector<double> up = x, down = x;
    up[i] += kStep;
    down[i] -= kStep;
    gradient.push_back((loss(up) - loss(down)) / (2 * kStep));
  }
  return gradient;
}

}  // namespace carousel::test
