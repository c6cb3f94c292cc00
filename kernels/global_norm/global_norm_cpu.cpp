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
  for (const RowSparseGradient<T>& each : row_sparse) {
    expect_extent("global_norm: row_count elements", each.row_count.extent[0], 1);
  }
  expect_at_least("global_norm: scratch elements", scratch.extent[0],
                  kGlobalNormPartials * (1 + static_cast<std::int64_t>(row_sparse.size())));
  expect_extent("global_norm: norm elements", norm.extent[0], 1);
  expect_extent("global_norm: gradient_scale elements", gradient_scale.extent[0], 1);
  expect_extent("global_norm: finite elements", finite.extent[0], 1);
  if (!(clip_norm >= 0 && std::isfinite(clip_norm))) {
    throw ConfigError(fmt::format(
        "global_norm: clip_norm is {}, expected 0 (no clipping) or a positive number", clip_norm));
  }
}

template <class T>
void GlobalNorm<T>::run(const Cpu&) const {
  const std::int64_t partials = for_each_part([](const Part& part) {
    const std::int64_t used = part.used(), stretch = part.stretch();
#pragma omp parallel for schedule(static) if (used > 32'768)
    for (std::int64_t p = 0; p < part.partials(); ++p) {
      const std::int64_t first = p * stretch;
      part.partial[p] = sum_of_squares(part.values + first, std::min(stretch, used - first));
    }
  });
  const double total = std::sqrt(std::accumulate(scratch.data, scratch.data + partials, 0.0));
  const double scale = clip_norm / (total + 1e-6);
  norm(0) = static_cast<T>(total);
  // The comparison is this way round so that NaN does not become 1.
  gradient_scale(0) = static_cast<T>(clip_norm == 0 || scale >= 1 ? 1.0 : scale);
  bool good = std::isfinite(norm(0));
  for (std::int64_t k = 0; k < loss.extent[0]; ++k) good = good && std::isfinite(loss(k));
  finite(0) = good && !(keep_failure && finite(0) == 0) ? 1 : 0;
}

template struct GlobalNorm<float>;
template struct GlobalNorm<double>;

}  // namespace carousel
