#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/dropout/dropout.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;  // no shared memory, some 40 registers: any size fills an SM

// Iterations of a thread on large problems, over which the key's set-up is spread.
constexpr int kEach = 4;

// What both passes do: to = factor · from, or that added to `to`.
template <class T>
struct Masking {
  const T* from;
  Gradient<T, 1> to;
  std::int64_t size;
  float drop_probability, scale;
  RandomSource source;
};

// One thread per 128 bits of T: one Philox block for 4 floats, two for 8 bf16. `from` may be `to`,
// so a thread reads all it needs before it writes.
template <class T>
__device__ void mask(const Masking<T>& m) {
  constexpr int kWide = kVector<T>;
  const std::int64_t step = m.source.step.data[0];
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x * kWide;
  std::int64_t n = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * kWide;
  for (; n < m.size; n += stride) {
    float values[kWide], before[kWide];
    load(m.from + n, m.size - n, values);
    if (m.to.accumulate) load(m.to.view.data + n, m.size - n, before);
#pragma unroll
    for (int i = 0; i < kWide; i += 4) {
      const auto words = m.source.words(static_cast<std::uint64_t>(n + i) / 4, step);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float factor =
            dropout_keeps(words[static_cast<std::size_t>(j)], m.drop_probability) ? m.scale : 0.0F;
        float& value = values[i + j];
        value = m.to.accumulate ? fmaf(value, factor, before[i + j]) : value * factor;
      }
    }
    store(m.to.view.data + n, m.size - n, values);
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

Grid grid_for(std::int64_t size, int wide) {
  return {.blocks = blocks_for(size, std::int64_t{kThreads} * wide * kEach), .threads = kThreads};
}

}  // namespace

template <class T>
void DropoutForward<T>::run(const Cuda& device) const {
  launch(device, grid_for(x.extent[0], kVector<T>), dropout_forward_kernel<T>,
         Masking<T>{
             x.data, {y}, x.extent[0], drop_probability, dropout_scale(drop_probability), source});
}

template <class T>
void DropoutBackward<T>::run(const Cuda& device) const {
  launch(device, grid_for(d_y.extent[0], kVector<T>), dropout_backward_kernel<T>,
         Masking<T>{d_y.data, d_x, d_y.extent[0], drop_probability, dropout_scale(drop_probability),
                    source});
}

template void DropoutForward<float>::run(const Cuda&) const;
template void DropoutForward<bf16>::run(const Cuda&) const;
template void DropoutBackward<float>::run(const Cuda&) const;
template void DropoutBackward<bf16>::run(const Cuda&) const;

}  // namespace carousel
