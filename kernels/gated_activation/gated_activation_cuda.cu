#include "kernels/activation/math.cuh"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/gated_activation/gated_activation.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;  // no shared memory and few registers: any size fills an SM

/// Calls f(row, column) for this thread's pieces: one for each 128 bits of a row of y.
template <class T, class F>
__device__ void for_each_piece(std::int64_t rows, std::int64_t columns, const F& f) {
  const std::int64_t pieces = (columns + kVector<T> - 1) / kVector<T>, items = rows * pieces;
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; item < items; item += threads) {
    const std::int64_t row = item / pieces;
    f(row, (item - row * pieces) * kVector<T>);
  }
}

template <class T>
Grid grid(std::int64_t rows, std::int64_t columns) {
  const std::int64_t pieces = (columns + kVector<T> - 1) / kVector<T>;
  return {.blocks = blocks_for(rows * pieces, kThreads), .threads = kThreads};
}

template <class F, class T>
__global__ void gated_activation_forward_kernel(
    const __grid_constant__ GatedActivationForward<T> op) {
  constexpr int N = kVector<T>;
  const std::int64_t columns = op.y.extent[1];
  for_each_piece<T>(op.y.extent[0], columns, [&](std::int64_t row, std::int64_t column) {
    const T* const x = op.x.data + row * 2 * columns + column;
    float gate[N], gated[N];
    load(x, columns - column, gate);
    load(x + columns, columns - column, gated);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      gated[i] *= F::template value<activation::DeviceMath>(gate[i]);
    }
    store(op.y.data + row * columns + column, columns - column, gated);
  });
}

/// Writes a piece of a gradient, or adds to it.
template <int N, class T>
__device__ void give(T* to, std::int64_t count, float (&value)[N], bool accumulate) {
  if (accumulate) {
    float before[N];
    load(to, count, before);
#pragma unroll
    for (int i = 0; i < N; ++i) value[i] += before[i];
  }
  store(to, count, value);
}

template <class F, class T>
__global__ void gated_activation_backward_kernel(
    const __grid_constant__ GatedActivationBackward<T> op) {
  constexpr int N = kVector<T>;
  const std::int64_t columns = op.d_y.extent[1];
  for_each_piece<T>(op.d_y.extent[0], columns, [&](std::int64_t row, std::int64_t column) {
    const std::int64_t at = row * 2 * columns + column, count = columns - column;
    float gate[N], gated[N], d[N];
    load(op.x.data + at, count, gate);
    load(op.x.data + at + columns, count, gated);
    load(op.d_y.data + row * columns + column, count, d);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const float value = F::template value<activation::DeviceMath>(gate[i]);
      gate[i] = F::template slope<activation::DeviceMath>(gate[i]) * gated[i] * d[i];
      gated[i] = value * d[i];
    }
    T* const d_x = op.d_x.view.data + at;
    give(d_x, count, gate, op.d_x.accumulate);
    give(d_x + columns, count, gated, op.d_x.accumulate);
  });
}

}  // namespace

template <class T>
void GatedActivationForward<T>::run(const Cuda& device) const {
  note_row_width<T>("C", y.extent[1]);
  activation::visit(kind, [&]<class F>(F) {
    launch(device, grid<T>(y.extent[0], y.extent[1]), gated_activation_forward_kernel<F, T>, *this);
  });
}

template <class T>
void GatedActivationBackward<T>::run(const Cuda& device) const {
  note_row_width<T>("C", d_y.extent[1]);
  activation::visit(kind, [&]<class F>(F) {
    launch(device, grid<T>(d_y.extent[0], d_y.extent[1]), gated_activation_backward_kernel<F, T>,
           *this);
  });
}

template void GatedActivationForward<float>::run(const Cuda&) const;
template void GatedActivationForward<bf16>::run(const Cuda&) const;
template void GatedActivationBackward<float>::run(const Cuda&) const;
template void GatedActivationBackward<bf16>::run(const Cuda&) const;

}  // namespace carousel
