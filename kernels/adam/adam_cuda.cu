#include "kernels/adam/adam.h"
#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/vector_io.cuh"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kEach = 8;  // what one 128-bit store of the bf16 copy holds

/// What depends on the step and the learning rate.
struct Shared {
  float size;  ///< learning_rate / (1 − beta1ᵗ)
  float root;  ///< 1 / √(1 − beta2ᵗ)
  float keep;  ///< learning_rate · weight_decay, if decoupled
};

// One thread per eight elements: two 128-bit accesses of each float array and one of the copy. The
// bias corrections, some forty dependent products in double, are one thread's work per block; the
// grid is a few waves, so that they are done often enough to need no launch of their own and seldom
// enough to cost nothing.
template <class T>
__global__ void adam_kernel(const __grid_constant__ Adam<T> op) {
  auto& shared = dynamic_shared<Shared>();
  if (threadIdx.x == 0) {
    const double rate = op.learning_rate.data[0];
    const std::int64_t t = op.step.data[0];
    shared.size = static_cast<float>(rate / bias_correction(op.beta1, t));
    shared.root = static_cast<float>(1 / sqrt(bias_correction(op.beta2, t)));
    shared.keep = static_cast<float>(op.decoupled ? rate * op.weight_decay : 0.0);
  }
  __syncthreads();
  const T size = shared.size, root = shared.root, keep = shared.keep;
  const bool skip = op.finite.present() && op.finite.data[0] == 0;
  const std::int64_t end = skip ? 0 : op.weight.extent[0];
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads * kEach;
  const T scale = op.gradient_scale.present() ? op.gradient_scale.data[0] : T{1};
  const T limit = op.clip_value == 0 ? static_cast<T>(INFINITY) : static_cast<T>(op.clip_value);
  const T decay = static_cast<T>(op.decoupled ? 0.0 : op.weight_decay);
  const T beta1 = static_cast<T>(op.beta1), rest1 = static_cast<T>(1 - op.beta1);
  const T beta2 = static_cast<T>(op.beta2), rest2 = static_cast<T>(1 - op.beta2);
  const T epsilon = static_cast<T>(op.epsilon);
  std::int64_t n = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kEach;
  for (; n < end; n += stride) {
    T weight[kEach], gradient[kEach], m[kEach], v[kEach];
    load(op.weight.data + n, end - n, weight);
    load(op.gradient.data + n, end - n, gradient);
    load(op.first_moment.data + n, end - n, m);
    load(op.second_moment.data + n, end - n, v);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      T g = gradient[i] * scale;
      g = g > limit ? limit : g;  // NaN compares false and stays
      g = g < -limit ? -limit : g;
      g += decay * weight[i];
      m[i] = beta1 * m[i] + rest1 * g;
      v[i] = beta2 * v[i] + rest2 * (g * g);
      weight[i] -= keep * weight[i] + size * (m[i] / (sqrtf(v[i]) * root + epsilon));
    }
    store(op.weight.data + n, end - n, weight);
    store(op.first_moment.data + n, end - n, m);
    store(op.second_moment.data + n, end - n, v);
    if (op.working.present()) store(op.working.data + n, end - n, weight);
  }
}

}  // namespace

template <class T>
void run(const Cuda& device, const Adam<T>& op) {
  // Eight blocks on each of up to 256 SMs, whatever N: see above.
  launch(device,
         {.blocks = blocks_for(op.weight.extent[0], kThreads * kEach, 2048),
          .threads = kThreads,
          .shared_bytes = sizeof(Shared)},
         adam_kernel<T>, op);
}

template <>
void run(const Cuda&, const Adam<double>&) {
  throw ConfigError("adam: f64 on CUDA, expected f32");
}
template void run(const Cuda&, const Adam<float>&);

}  // namespace carousel
