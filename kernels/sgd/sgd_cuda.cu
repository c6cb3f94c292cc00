#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/sgd/sgd.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kEach = 8;  // what one 128-bit store of the bf16 copy holds

// One thread per eight elements: two 128-bit accesses of each float array and one of the copy.
template <class T>
__global__ void sgd_kernel(const __grid_constant__ Sgd<T> op) {
  if (op.finite.present() && op.finite.data[0] == 0) return;  // the whole grid; no barrier follows
  const std::int64_t size = op.weight.extent[0];
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads * kEach;
  const T rate = op.learning_rate.data[0];
  const T scale = op.gradient_scale.present() ? op.gradient_scale.data[0] : T{1};
  const T limit = op.clip_value == 0 ? static_cast<T>(INFINITY) : static_cast<T>(op.clip_value);
  const T decay = static_cast<T>(op.weight_decay), momentum = static_cast<T>(op.momentum);
  std::int64_t n = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kEach;
  for (; n < size; n += stride) {
    T weight[kEach], g[kEach], b[kEach] = {};
    load(op.weight.data + n, size - n, weight);
    load(op.gradient.data + n, size - n, g);
    if (op.velocity.present()) load(op.velocity.data + n, size - n, b);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      g[i] *= scale;
      g[i] = g[i] > limit ? limit : g[i];  // NaN compares false and stays
      g[i] = g[i] < -limit ? -limit : g[i];
      g[i] += decay * weight[i];
      b[i] = momentum * b[i] + g[i];
      weight[i] -= rate * (op.nesterov ? g[i] + momentum * b[i] : b[i]);
    }
    store(op.weight.data + n, size - n, weight);
    if (op.velocity.present()) store(op.velocity.data + n, size - n, b);
    if (op.working.present()) store(op.working.data + n, size - n, weight);
  }
}

}  // namespace

template <class T>
void run(const Cuda& device, const Sgd<T>& op) {
  launch(device, {.blocks = blocks_for(op.weight.extent[0], kThreads * kEach), .threads = kThreads},
         sgd_kernel<T>, op);
}

template <>
void run(const Cuda&, const Sgd<double>&) {
  throw ConfigError("sgd: f64 on CUDA, expected f32");
}
template void run(const Cuda&, const Sgd<float>&);

}  // namespace carousel
