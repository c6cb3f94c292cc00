#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/pooling/pooling.h"

namespace carousel {
namespace {

// Units of a row that are pooled together: their results stay in the first-level cache over all
// time steps, and a step reads a piece of memory long enough for the prefetcher.
constexpr std::int64_t kUnits = 256;

/// Some neighbouring units of a row of [T, B, H].
struct Block {
  std::int64_t row;     ///< of the batch
  std::int64_t offset;  ///< of the first unit in [B, H]
  std::int64_t count;
};

/// Calls body(block) for the blocks of [T, B, H], on all threads.
template <class Body>
void for_blocks(const std::array<std::int64_t, 3>& extent, const Body& body) {
  const std::int64_t rows = extent[1], width = extent[2];
  const std::int64_t blocks = (width + kUnits - 1) / kUnits;
#pragma omp parallel for schedule(static) if (extent[0] * rows * width > kCpuChunk)
  for (std::int64_t i = 0; i < rows * blocks; ++i) {
    const std::int64_t row = i / blocks, first = i % blocks * kUnits;
    body(Block{row, row * width + first, std::min(kUnits, width - first)});
  }
}

// The loops over units below become vectors. (ivdep and not omp simd, which makes arrays of class
// temporaries and leaves bf16 scalar.)

template <bool kMax, class T>
void pool(const PoolingForward<T>& op, const Block& block) {
  using A = Accumulator<T>;
  const auto [all, rows, width] = op.x.extent;
  const std::int64_t steps = pooled_steps(op.length, block.row, all);
  alignas(64) A result[kUnits];
  alignas(64) std::int32_t chosen[kUnits];
  std::fill_n(result, kUnits, kMax && steps > 0 ? -std::numeric_limits<A>::infinity() : A{0});
  std::fill_n(chosen, kUnits, steps > 0 ? 0 : -1);
  for (std::int64_t t = 0; t < steps; ++t) {
    const T* const x = op.x.data + t * rows * width + block.offset;
    const auto step = static_cast<std::int32_t>(t);
#pragma GCC ivdep
    for (std::int64_t i = 0; i < block.count; ++i) {
      const A value = static_cast<A>(x[i]);
      if constexpr (kMax) {
        const bool better = exceeds(value, result[i]);
        result[i] = better ? value : result[i];
        chosen[i] = better ? step : chosen[i];
      } else {
        result[i] += value;
      }
    }
  }
  const A n = static_cast<A>(kMax || steps == 0 ? 1 : steps);
  T* const y = op.y.data + block.offset;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < block.count; ++i) y[i] = static_cast<T>(result[i] / n);
  if constexpr (kMax) std::copy_n(chosen, block.count, op.chosen.data + block.offset);
}

template <bool kMax, bool kAccumulate, class T>
void spread(const PoolingBackward<T>& op, const Block& block) {
  using A = Accumulator<T>;
  const auto [all, rows, width] = op.d_x.view.extent;
  const std::int64_t steps = pooled_steps(op.length, block.row, all);
  const T* const d_y = op.d_y.data + block.offset;
  const std::int32_t* const chosen = kMax ? op.chosen.data + block.offset : nullptr;
  alignas(64) A share[kUnits];
  for (std::int64_t i = 0; i < block.count; ++i) {
    share[i] = kMax ? static_cast<A>(d_y[i]) : static_cast<A>(d_y[i]) / static_cast<A>(steps);
  }
  for (std::int64_t t = 0; t < (kAccumulate ? steps : all); ++t) {
    T* const d_x = op.d_x.view.data + t * rows * width + block.offset;
    if (t >= steps) {
      std::fill_n(d_x, block.count, static_cast<T>(0.0F));
      continue;
    }
    const auto step = static_cast<std::int32_t>(t);
#pragma GCC ivdep
    for (std::int64_t i = 0; i < block.count; ++i) {
      const A before = kAccumulate ? static_cast<A>(d_x[i]) : A{0};
      const A after = kAccumulate ? before + share[i] : share[i];
      d_x[i] = static_cast<T>(kMax && chosen[i] != step ? before : after);
    }
  }
}

/// What the passes have in common, the extents of [T, B, H] given.
template <class Op>
void check_arguments(const Op& op, const std::array<std::int64_t, 3>& extent) {
  const auto [steps, rows, width] = extent;
  if (steps > std::numeric_limits<std::int32_t>::max()) {
    throw ShapeError(fmt::format("pooling: T is {}, expected fewer than 2^31", steps));
  }
  if (op.length.present()) expect_extent("pooling: length rows", op.length.extent[0], rows);
  const bool is_max = op.kind == Pooling::max;
  expect_extent("pooling: chosen rows", op.chosen.extent[0], is_max ? rows : 0);
  expect_extent("pooling: chosen columns", op.chosen.extent[1], is_max ? width : 0);
}

}  // namespace

template <class T>
void PoolingForward<T>::check() const {
  expect_extent("pooling: y rows", y.extent[0], x.extent[1]);
  expect_extent("pooling: y columns", y.extent[1], x.extent[2]);
  check_arguments(*this, x.extent);
}

template <class T>
void PoolingBackward<T>::check() const {
  expect_extent("pooling: d_y rows", d_y.extent[0], d_x.view.extent[1]);
  expect_extent("pooling: d_y columns", d_y.extent[1], d_x.view.extent[2]);
  check_arguments(*this, d_x.view.extent);
}

template <class T>
void PoolingForward<T>::run(const Cpu&) const {
  const auto pass = kind == Pooling::max ? pool<true, T> : pool<false, T>;
  for_blocks(x.extent, [&](const Block& block) { pass(*this, block); });
}

template <class T>
void PoolingBackward<T>::run(const Cpu&) const {
  const bool add = d_x.accumulate;
  const auto max = add ? spread<true, true, T> : spread<true, false, T>;
  const auto mean = add ? spread<false, true, T> : spread<false, false, T>;
  const auto pass = kind == Pooling::max ? max : mean;
  for_blocks(d_x.view.extent, [&](const Block& block) { pass(*this, block); });
}

template struct PoolingForward<float>;
template struct PoolingForward<bf16>;
template struct PoolingForward<double>;
template struct PoolingBackward<float>;
template struct PoolingBackward<bf16>;
template struct PoolingBackward<double>;

}  // namespace carousel
