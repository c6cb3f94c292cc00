#include "kernels/common/cuda/launch.cuh"
#include "kernels/key_value_cache/key_value_cache.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;  // no shared memory and few registers: any size fills an SM

// One thread per number of k and v; those of step 0 write `used` too.
template <class T>
__global__ void store_keys_and_values_kernel(const __grid_constant__ StoreKeysAndValues<T> op) {
  const std::int64_t batch = op.x.extent[1], columns = op.x.extent[2], width = op.k.extent[2];
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  const std::int64_t mine = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (std::int64_t b = mine; b < batch; b += threads) op.used(b) = op.used_after(b);
  const std::int64_t items = op.x.extent[0] * batch * width;
  for (std::int64_t item = mine; item < items; item += threads) {
    const std::int64_t row = item / width, i = item - row * width, t = row / batch;
    const std::int64_t b = row - t * batch, to = op.place(t, b);
    if (to < 0) continue;
    const T* const from = op.x.data + row * columns + i;
    op.k(to, b, i) = from[op.first_k];
    op.v(to, b, i) = from[op.first_v];
  }
}

}  // namespace

template <class T>
void StoreKeysAndValues<T>::run(const Cuda& device) const {
  const std::int64_t batch = x.extent[1], items = x.extent[0] * batch * k.extent[2];
  const std::int64_t blocks = blocks_for(items > batch ? items : batch, kThreads);
  launch(device, {.blocks = blocks, .threads = kThreads}, store_keys_and_values_kernel<T>, *this);
}

template void StoreKeysAndValues<float>::run(const Cuda&) const;
template void StoreKeysAndValues<bf16>::run(const Cuda&) const;

}  // namespace carousel
