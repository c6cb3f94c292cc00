#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/dropout/dropout.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;  // no shared memory, some 40 registers: any size fills an SM

// Iterations of a thread on large problems, over which the key's set-up is spread.
constexpr int kEach = 4;

// Repeats of the mask per thread, over which a draw is spread.
constexpr std::int64_t kRowsEach = 8;
constexpr std::int64_t kMostBlocksY = 65'535;

// What both passes do: to = factor · from, or that added to `to`. The elements are rows of one
// period each.
template <class T>
struct Masking {
  const T* from;
  Gradient<T, 1> to;
  std::int64_t rows, columns;
  float drop_probability, scale;
  RandomSource source;

  Masking(View<const T, 1> input, const Gradient<T, 1>& output, float probability,
          const RandomSource& random, std::int64_t period)
      : from(input.data),
        to(output),
        rows(period == 0 ? 1 : input.extent[0] / period),
        columns(period == 0 ? input.extent[0] : period),
        drop_probability(probability),
        scale(dropout_scale(probability)),
        source(random) {}

  Grid grid() const {
    return {.blocks = blocks_for(columns, std::int64_t{kThreads} * kVector<T> * kEach),
            .blocks_y = blocks_for(rows, kRowsEach, kMostBlocksY),
            .threads = kThreads};
  }
};

// One thread per 128 bits of T of several rows: one Philox block for 4 floats, two for 8 bf16.
// `from` may be `to`, so a thread reads all it needs before it writes.
template <class T>
__device__ void mask(const Masking<T>& m) {
  constexpr int kWide = kVector<T>;
  const std::int64_t step = m.source.step.data[0];
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x * kWide;
  std::int64_t n = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kWide;
  for (; n < m.columns; n += stride) {
    const std::int64_t count = m.columns - n;
    float factor[kWide];
#pragma unroll
    for (int i = 0; i < kWide; i += 4) {
      const auto words = m.source.words(static_cast<std::uint64_t>(n + i) / 4, step);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        factor[i + j] =
            dropout_keeps(words[static_cast<std::size_t>(j)], m.drop_probability) ? m.scale : 0.0F;
      }
    }
    for (std::int64_t row = blockIdx.y; row < m.rows; row += gridDim.y) {
      float values[kWide], before[kWide];
      load(m.from + row * m.columns + n, count, values);
      if (m.to.accumulate) load(m.to.view.data + row * m.columns + n, count, before);
#pragma unroll
      for (int i = 0; i < kWide; ++i) {
        values[i] = m.to.accumulate ? fmaf(values[i], factor[i], before[i]) : values[i] * factor[i];
      }
      store(m.to.view.data + row * m.columns + n, count, values);
    }
  }
}

template <class T>
__global__ void dropout_forward_kernel(const __grid_constant__ Masking<T> m) {
  mask(m);
}

template <class T>
__global__ void dropout_backward_kernel(const __grid_constant__ Masking<T> m) {
  mask(m);
}

}  // namespace

template <class T>
void DropoutForward<T>::run(const Cuda& device) const {
  const Masking<T> masking(x, {y}, drop_probability, source, period);
  launch(device, masking.grid(), dropout_forward_kernel<T>, masking);
}

template <class T>
void DropoutBackward<T>::run(const Cuda& device) const {
  const Masking<T> masking(d_y, d_x, drop_probability, source, period);
  launch(device, masking.grid(), dropout_backward_kernel<T>, masking);
}

template void DropoutForward<float>::run(const Cuda&) const;
template void DropoutForward<bf16>::run(const Cuda&) const;
template void DropoutBackward<float>::run(const Cuda&) const;
template void DropoutBackward<bf16>::run(const Cuda&) const;

}  // namespace carousel
