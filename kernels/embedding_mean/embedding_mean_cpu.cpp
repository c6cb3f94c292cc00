#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/cross_entropy/row.h"
#include "kernels/embedding/embedding_scratch.h"
#include "kernels/embedding_mean/embedding_mean.h"

namespace carousel {
namespace {

/// One context; `sum` is a buffer of a row.
template <class T>
void average(const EmbeddingMean<T>& op, std::int64_t n, std::vector<Accumulator<T>>& sum) {
  using A = Accumulator<T>;
  const std::int64_t width = op.weight.extent[1], vocab = op.weight.extent[0];
  const A share = op.share_of(n);
  A* const to = sum.data();
  std::fill(sum.begin(), sum.end(), A{0});
  for (std::int64_t k = 0; k < op.token.extent[1]; ++k) {
    const std::int32_t token = op.token(n, k);
    op.share(n, k) = token == kNoToken ? A{0} : share;
    if (token == kNoToken) continue;
    if (!known_token(token, vocab)) {
      std::fill(sum.begin(), sum.end(), static_cast<A>(NAN));
      continue;
    }
    const T* const from = op.weight.data + token * width;
#pragma GCC ivdep
    for (std::int64_t e = 0; e < width; ++e) to[e] += row::widened<A>(from[e]);
  }
  T* const y = op.y.data + n * width;
#pragma GCC ivdep
  for (std::int64_t e = 0; e < width; ++e) row::narrow(to[e] * share, y[e]);
}

}  // namespace

template <class T>
void EmbeddingMean<T>::check() const {
  const auto [rows, places] = token.extent;
  expect_extent("embedding_mean: y rows", y.extent[0], rows);
  expect_extent("embedding_mean: y columns", y.extent[1], weight.extent[1]);
  expect_extent("embedding_mean: share rows", share.extent[0], rows);
  expect_extent("embedding_mean: share columns", share.extent[1], places);
}

template <class T>
void EmbeddingMean<T>::run(const Cpu&) const {
  const std::int64_t rows = token.extent[0], width = weight.extent[1];
#pragma omp parallel if (rows * token.extent[1] * width > kCpuChunk)
  {
    std::vector<Accumulator<T>> sum(static_cast<std::size_t>(width));
#pragma omp for schedule(static)
    for (std::int64_t n = 0; n < rows; ++n) average(*this, n, sum);
  }
}

template struct EmbeddingMean<float>;
template struct EmbeddingMean<bf16>;
template struct EmbeddingMean<double>;

}  // namespace carousel
