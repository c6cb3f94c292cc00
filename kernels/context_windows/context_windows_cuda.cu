#include "kernels/common/cuda/launch.cuh"
#include "kernels/context_windows/item.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;  // no shared memory and few registers: any size fills an SM

// One thread per step and row, and one per row for its end. Neighbouring threads read neighbouring
// rows of a step, and write K numbers each, one behind the other.
__global__ void context_windows_kernel(const __grid_constant__ ContextWindows op) {
  const std::int64_t items = op.token.size() + op.token.extent[1];
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; item < items; item += stride) write_context(op, item);
}

}  // namespace

void ContextWindows::run(const Cuda& device) const {
  const std::int64_t items = token.size() + token.extent[1];
  launch(device, {.blocks = blocks_for(items, kThreads), .threads = kThreads},
         context_windows_kernel, *this);
}

}  // namespace carousel
