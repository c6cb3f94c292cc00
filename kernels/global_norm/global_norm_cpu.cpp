#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/common/check.h"
#include "kernels/global_norm/global_norm.h"

namespace carousel {
namespace {

template <class T>
double sum_of_squares(const T* values, std::int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<double>(values[i]);
    sum += value * value;
  }
  return sum;
}

}  // namespace

template <class T>
void GlobalNorm<T>::check() const {
  if (loss.present()) expect_extent("global_norm: loss elements", loss.extent[0], 1);
  expect_extent("global_norm: scratch elements", scratch.extent[0], kGlobalNormPartials);
  expect_extent("global_norm: norm elements", norm.extent[0], 1);
  expect_extent("global_norm: gradient_scale elements", gradient_scale.extent[0], 1);
  expect_extent("global_norm: finite elements", finite.extent[0], 1);
  if (!(clip_norm >= 0 && std::isfinite(clip_norm))) {
    throw ConfigError(fmt::format(
        "global_norm: clip_norm is {}, expected 0 (no clipping) or a positive number", clip_norm));
  }
}

template <class T>
void run(const Cpu&, const GlobalNorm<T>& op) {
  const std::int64_t size = op.gradient.extent[0], stretch = op.stretch();
  const std::int64_t partials = (size + stretch - 1) / stretch;
  const T* const gradient = op.gradient.data;
  double* const partial = op.scratch.data;
#pragma omp parallel for schedule(static) if (size > 32'768)
  for (std::int64_t p = 0; p < partials; ++p) {
    const std::int64_t first = p * stretch;
    partial[p] = sum_of_squares(gradient + first, std::min(stretch, size - first));
  }
  const double norm = std::sqrt(std::accumulate(partial, partial + partials, 0.0));
  const double scale = op.clip_norm / (norm + 1e-6);
  op.norm(0) = static_cast<T>(norm);
  // The comparison is this way round so that NaN does not become 1.
  op.gradient_scale(0) = static_cast<T>(op.clip_norm == 0 || scale >= 1 ? 1.0 : scale);
  const bool finite =
      std::isfinite(op.norm(0)) && (!op.loss.present() || std::isfinite(op.loss(0)));
  op.finite(0) = finite && !(op.keep_failure && op.finite(0) == 0) ? 1 : 0;
}

template struct GlobalNorm<float>;
template struct GlobalNorm<double>;
template void run(const Cpu&, const GlobalNorm<float>&);
template void run(const Cpu&, const GlobalNorm<double>&);

}  // namespace carousel
