#include <cmath>
#include <cstdint>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/pooling/pooling.h"

namespace carousel {
namespace {

// Few threads have work, one per 128 bits of [B, H], so that small blocks spread over more SMs.
constexpr unsigned kThreads = 64;

// Time steps of a thread whose loads are in flight together, 32 values: what covers the latency of
// a chain of dependent sums.
template <class T>
inline constexpr int kAhead = 32 / kVector<T>;

// Time steps of a thread of the backward pass, over which it reads d_y and chosen once.
constexpr std::int64_t kTile = 16;
constexpr std::int64_t tiles_of(std::int64_t steps) { return (steps + kTile - 1) / kTile; }

template <class T>
constexpr std::int64_t vectors_of(std::int64_t width) {
  return (width + kVector<T> - 1) / kVector<T>;
}

/// Calls body(tile, row, offset, count) for this thread's share of `tiles` times [rows, width], 128
/// bits at a time: `offset` is that of the first unit in [rows, width], `count` the units from there
/// to the end of the row.
template <class T, class Body>
__device__ void for_vectors(std::int64_t tiles, std::int64_t rows, std::int64_t width,
                            const Body& body) {
  const std::int64_t vectors = vectors_of<T>(width), items = tiles * rows * vectors;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (; item < items; item += stride) {
    const std::int64_t line = item / vectors, unit = (item - line * vectors) * kVector<T>;
    const std::int64_t tile = line / rows, row = line - tile * rows;
    body(tile, row, row * width + unit, width - unit);
  }
}

// One thread per 128 bits of y, through all time steps.
template <bool kMax, class T>
__global__ void pooling_forward_kernel(const __grid_constant__ PoolingForward<T> op) {
  constexpr int kWide = kVector<T>;
  const auto [all, rows, width] = op.x.extent;
  for_vectors<T>(1, rows, width, [&](auto, auto row, auto offset, std::int64_t count) {
    const std::int64_t steps = pooled_steps(op.length, row, all), stride = rows * width;
    const T* const __restrict__ x = op.x.data + offset;
    float result[kWide];
    std::int32_t chosen[kWide];
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      result[i] = kMax && steps > 0 ? -INFINITY : 0.0F;
      chosen[i] = steps > 0 ? 0 : -1;
    }
    for (std::int64_t first = 0; first < steps; first += kAhead<T>) {
      float value[kAhead<T>][kWide];
#pragma unroll
      for (int s = 0; s < kAhead<T>; ++s) {
        if (first + s < steps) load(x + (first + s) * stride, count, value[s]);
      }
#pragma unroll
      for (int s = 0; s < kAhead<T>; ++s) {
        if (first + s >= steps) continue;
#pragma unroll
        for (int i = 0; i < kWide; ++i) {
          if constexpr (!kMax) {
            result[i] += value[s][i];
          } else if (exceeds(value[s][i], result[i])) {
            result[i] = value[s][i];
            chosen[i] = static_cast<std::int32_t>(first + s);
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      if (!kMax && steps > 0) result[i] /= static_cast<float>(steps);
      if (kMax && i < count) op.chosen.data[offset + i] = chosen[i];
    }
    store(op.y.data + offset, count, result);
  });
}

// One thread per 128 bits of a row and tile of time steps, so that tiles are written side by side.
template <bool kMax, class T>
__global__ void pooling_backward_kernel(const __grid_constant__ PoolingBackward<T> op) {
  constexpr int kWide = kVector<T>;
  const auto [all, rows, width] = op.d_x.view.extent;
  const auto work = [&](std::int64_t tile, auto row, auto offset, std::int64_t count) {
    const std::int64_t steps = pooled_steps(op.length, row, all);
    float share[kWide];
    load(op.d_y.data + offset, count, share);
    std::int32_t chosen[kWide];
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      chosen[i] = kMax && i < count ? op.chosen.data[offset + i] : -1;
      if (!kMax) share[i] /= static_cast<float>(steps);
    }
    const std::int64_t written = op.d_x.accumulate ? steps : all;
    const std::int64_t end = (tile + 1) * kTile < written ? (tile + 1) * kTile : written;
    for (std::int64_t t = tile * kTile; t < end; ++t) {
      T* const to = op.d_x.view.data + t * rows * width + offset;
      float value[kWide]{};
      if (op.d_x.accumulate) load(to, count, value);
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        if (t >= steps || (kMax && chosen[i] != t)) continue;
        value[i] = op.d_x.accumulate ? value[i] + share[i] : share[i];
      }
      store(to, count, value);
    }
  };
  for_vectors<T>(tiles_of(all), rows, width, work);
}

template <class T>
Grid grid_for(std::int64_t tiles, std::int64_t rows, std::int64_t width) {
  note_row_width<T>("H", width);
  return {.blocks = blocks_for(tiles * rows * vectors_of<T>(width), kThreads), .threads = kThreads};
}

}  // namespace

template <class T>
void PoolingForward<T>::run(const Cuda& device) const {
  launch(device, grid_for<T>(1, x.extent[1], x.extent[2]),
         kind == Pooling::max ? pooling_forward_kernel<true, T> : pooling_forward_kernel<false, T>,
         *this);
}

template <class T>
void PoolingBackward<T>::run(const Cuda& device) const {
  const auto [steps, rows, width] = d_x.view.extent;
  launch(
      device, grid_for<T>(tiles_of(steps), rows, width),
      kind == Pooling::max ? pooling_backward_kernel<true, T> : pooling_backward_kernel<false, T>,
      *this);
}

template void PoolingForward<float>::run(const Cuda&) const;
template void PoolingForward<bf16>::run(const Cuda&) const;
template void PoolingBackward<float>::run(const Cuda&) const;
template void PoolingBackward<bf16>::run(const Cuda&) const;

}  // namespace carousel
