#include "models/hmm/tables.h"

#include <algorithm>
#include <array>

namespace carousel {
namespace {

constexpr std::size_t kLanes = HmmTables::kLanes;

/// Columns [first, first + Lanes) of the product: their sums stay in registers.
template <std::size_t Lanes>
void columns_of_product(std::span<const double> x, const double* __restrict__ matrix,
                        std::size_t first, double* __restrict__ y) {
  const std::size_t width = x.size();
  std::array<double, Lanes> sum{};
  for (std::size_t i = 0; i < width; ++i) {
    const double factor = x[i];
    const double* const row = matrix + i * width + first;
#pragma omp simd
    for (std::size_t lane = 0; lane < Lanes; ++lane) sum[lane] += factor * row[lane];
  }
  std::copy(sum.begin(), sum.end(), y + first);
}

}  // namespace

HmmTables::HmmTables(std::int64_t state_count, std::int64_t token_count)
    : states(state_count),
      vocabulary(token_count),
      width((state_count + kLanes - 1) / kLanes * kLanes),
      start(static_cast<std::size_t>(width)),
      transition(static_cast<std::size_t>(width * width)),
      emission(static_cast<std::size_t>(token_count * width)) {}

void row_times_matrix(std::span<const double> x, std::span<const double> matrix,
                      std::span<double> y) {
  const std::size_t width = x.size();
  std::size_t first = 0;
  for (; first + 4 * kLanes <= width; first += 4 * kLanes) {
    columns_of_product<4 * kLanes>(x, matrix.data(), first, y.data());
  }
  for (; first + 2 * kLanes <= width; first += 2 * kLanes) {
    columns_of_product<2 * kLanes>(x, matrix.data(), first, y.data());
  }
  for (; first < width; first += kLanes) {
    columns_of_product<kLanes>(x, matrix.data(), first, y.data());
  }
}

double lane_sum(std::span<const double> values) {
  std::array<double, kLanes> sum{};
  for (std::size_t i = 0; i < values.size(); i += kLanes) {
#pragma omp simd
    for (std::size_t lane = 0; lane < kLanes; ++lane) sum[lane] += values[i + lane];
  }
  return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

std::vector<double> transposed(std::span<const double> matrix, std::int64_t width) {
  const auto w = static_cast<std::size_t>(width);
  std::vector<double> result(matrix.size());
  for (std::size_t i = 0; i < w; ++i) {
    for (std::size_t j = 0; j < w; ++j) result[j * w + i] = matrix[i * w + j];
  }
  return result;
}

}  // namespace carousel
