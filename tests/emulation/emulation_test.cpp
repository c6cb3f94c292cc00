#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/memory.h"

namespace carousel {
namespace {

Cuda& device() {
  static auto& only = *new Cuda();
  return only;
}

template <class T>
struct Shared256 {
  T value[256];
};

/// Turns each block's values round.
__global__ void reverse_kernel(int* values) {
  auto& shared = dynamic_shared<Shared256<int>>();
  int* const own = values + blockIdx.x * blockDim.x;
  shared.value[threadIdx.x] = own[threadIdx.x];
  __syncthreads();
  own[threadIdx.x] = shared.value[blockDim.x - 1 - threadIdx.x];
}

TEST(Emulation, BarrierOrdersABlock) {
  Memory memory(device(), 64 * 256 * 4);
  std::vector<int> v(64 * 256), r(v.size());
  std::iota(v.begin(), v.end(), 0);
  copy_to_device(device(), memory.data(), v.data(), v.size() * 4);
  launch(device(), {.blocks = 64, .threads = 256, .shared_bytes = 1024}, reverse_kernel,
         static_cast<int*>(memory.data()));
  copy_to_host(device(), r.data(), memory.data(), v.size() * 4);
  for (std::size_t i = 0; i < r.size(); ++i) {
    ASSERT_EQ(r[i], static_cast<int>(i / 256 * 256 + 255 - i % 256));
  }
}

}  // namespace
}  // namespace carousel
