#include "kernels/activation/math.cuh"
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
Grid grid(std::int64_t size) {
  return {.blocks = blocks_for(size, std::int64_t{kThreads} * kVector<T>), .threads = kThreads};
}

// One thread per 128 bits of x.
template <class F, class T>
__global__ void activation_forward_kernel(const __grid_constant__ ActivationForward<T> op) {
  const std::int64_t size = op.x.extent[0];
  for (std::int64_t n = thread_index() * kVector<T>; n < size; n += thread_count() * kVector<T>) {
    float value[kVector<T>];
    load(op.x.data + n, size - n, value);
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i)
      value[i] = F::template value<activation::DeviceMath>(value[i]);
    store(op.y.data + n, size - n, value);
  }
}

template <class F, class T>
__global__ void activation_backward_kernel(const __grid_constant__ ActivationBackward<T> op) {
  const std::int64_t size = op.x.extent[0];
  for (std::int64_t n = thread_index() * kVector<T>; n < size; n += thread_count() * kVector<T>) {
    const std::int64_t count = size - n;
    float x[kVector<T>], d[kVector<T>], before[kVector<T>];
    load(op.x.data + n, count, x);
    load(op.d_y.data + n, count, d);
    if (op.d_x.accumulate) load(op.d_x.view.data + n, count, before);
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) {
      d[i] *= F::template slope<activation::DeviceMath>(x[i]);
      if (op.d_x.accumulate) d[i] += before[i];
    }
    store(op.d_x.view.data + n, count, d);
  }
}

}  // namespace

template <class T>
void ActivationForward<T>::run(const Cuda& device) const {
  activation::visit(kind, [&]<class F>(F) {
    launch(device, grid<T>(x.extent[0]), activation_forward_kernel<F, T>, *this);
  });
}

template <class T>
void ActivationBackward<T>::run(const Cuda& device) const {
  activation::visit(kind, [&]<class F>(F) {
    launch(device, grid<T>(x.extent[0]), activation_backward_kernel<F, T>, *this);
  });
}

template void ActivationForward<float>::run(const Cuda&) const;
template void ActivationForward<bf16>::run(const Cuda&) const;
template void ActivationBackward<float>::run(const Cuda&) const;
template void ActivationBackward<bf16>::run(const Cuda&) const;

}  // namespace carousel
