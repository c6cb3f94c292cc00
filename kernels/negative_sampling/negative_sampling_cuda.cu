#include "kernels/common/cuda/launch.cuh"
#include "kernels/negative_sampling/negative_sampling.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;  // no shared memory and few registers: any size fills an SM

// One thread per row: its K draws depend on nothing, so that their reads of the table overlap.
__global__ void negative_sampling_kernel(const __grid_constant__ NegativeSampling op) {
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; n < op.target.extent[0]; n += stride) op.write_row(n);
}

}  // namespace

void NegativeSampling::run(const Cuda& device) const {
  launch(device, {.blocks = blocks_for(target.extent[0], kThreads), .threads = kThreads},
         negative_sampling_kernel, *this);
}

}  // namespace carousel
