#include "kernels/common/cuda/launch.cuh"
#include "kernels/hierarchical_softmax/hierarchical_softmax.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;  // no shared memory and few registers: any size fills an SM

// One thread per row: paths of neighbouring rows have their first nodes in common.
__global__ void hierarchical_softmax_kernel(const __grid_constant__ HierarchicalSoftmax op) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; n < op.target.extent[0]; n += stride) op.write_row(n);
}

}  // namespace

void HierarchicalSoftmax::run(const Cuda& device) const {
  launch(device, {.blocks = blocks_for(target.extent[0], kThreads), .threads = kThreads},
         hierarchical_softmax_kernel, *this);
}

}  // namespace carousel
