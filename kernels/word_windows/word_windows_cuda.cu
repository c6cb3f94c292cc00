#include "kernels/common/cuda/launch.cuh"
#include "kernels/word_windows/item.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;  // no shared memory and few registers: any size fills an SM

__device__ std::int64_t first_word() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ std::int64_t word_stride() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

// One thread per word in both.
__global__ void word_windows_mark_kernel(const __grid_constant__ WordWindows op) {
  for (std::int64_t n = first_word(); n < op.token.size(); n += word_stride()) {
    word_windows::mark(op, n);
  }
}

__global__ void word_windows_kernel(const __grid_constant__ WordWindows op) {
  for (std::int64_t n = first_word(); n < op.token.size(); n += word_stride()) {
    word_windows::write(op, n);
  }
}

}  // namespace

void WordWindows::run(const Cuda& device) const {
  const Grid grid{.blocks = blocks_for(token.size(), kThreads), .threads = kThreads};
  launch(device, grid, word_windows_mark_kernel, *this);
  launch(device, grid, word_windows_kernel, *this);
}

}  // namespace carousel
