#include "kernels/combine/combine.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/vector_io.cuh"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;  // no shared memory and few registers: any size fills an SM

__device__ std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ std::int64_t thread_count() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

template <class T>
constexpr std::int64_t vectors_of(std::int64_t size) {
  return (size + kVector<T> - 1) / kVector<T>;
}

/// y[i] = a[i] + b[i] for 128 bits of T, or as many of them as `count` says; y may be b.
template <class T>
__device__ void add(const T* a, const T* b, T* y, std::int64_t count) {
  float value[kVector<T>], other[kVector<T>];
  load(a, count, value);
  load(b, count, other);
#pragma unroll
  for (int i = 0; i < kVector<T>; ++i) value[i] += other[i];
  store(y, count, value);
}

// One thread per 128 bits of a row of `width`.
template <class T>
__global__ void copy_columns_kernel(const __grid_constant__ CopyColumns<T> op) {
  const std::int64_t vectors = vectors_of<T>(op.width), items = op.from.extent[0] * vectors;
  for (std::int64_t item = thread_index(); item < items; item += thread_count()) {
    const std::int64_t row = item / vectors, column = (item - row * vectors) * kVector<T>;
    const std::int64_t count = op.width - column;
    const T* const from = op.from.data + row * op.from.extent[1] + op.first_from + column;
    T* const to = op.to.view.data + row * op.to.view.extent[1] + op.first_to + column;
    if (op.to.accumulate) {
      add(from, to, to, count);
    } else {
      float value[kVector<T>];
      load(from, count, value);
      store(to, count, value);
    }
  }
}

// One thread per 128 bits of y.
template <class T>
__global__ void add_kernel(const __grid_constant__ Add<T> op) {
  const std::int64_t size = op.y.extent[0];
  for (std::int64_t n = thread_index() * kVector<T>; n < size; n += thread_count() * kVector<T>) {
    add(op.a.data + n, op.b.data + n, op.y.data + n, size - n);
  }
}

}  // namespace

template <class T>
void CopyColumns<T>::run(const Cuda& device) const {
  note_row_width<T>("F", from.extent[1]);
  note_row_width<T>("G", to.view.extent[1]);
  note_row_width<T>("first_from", first_from);
  note_row_width<T>("first_to", first_to);
  const std::int64_t items = from.extent[0] * vectors_of<T>(width);
  launch(device, {.blocks = blocks_for(items, kThreads), .threads = kThreads},
         copy_columns_kernel<T>, *this);
}

template <class T>
void Add<T>::run(const Cuda& device) const {
  const std::int64_t items = vectors_of<T>(y.extent[0]);
  launch(device, {.blocks = blocks_for(items, kThreads), .threads = kThreads}, add_kernel<T>,
         *this);
}

template void CopyColumns<float>::run(const Cuda&) const;
template void CopyColumns<bf16>::run(const Cuda&) const;
template void Add<float>::run(const Cuda&) const;
template void Add<bf16>::run(const Cuda&) const;

}  // namespace carousel
