#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/common/cuda/launch.cuh"

namespace carousel {

/// Blocks of `x` threads along a row, `each` values per thread, and as many rows beside one another
/// as `threads` allows, so that narrow rows do not idle most of a warp.
struct RowGrid {
  unsigned x = 1, y = 1;
  std::int64_t columns_each = 0;   ///< columns that one pass of x threads covers
  std::int64_t column_blocks = 0;  ///< passes that cover the row
  RowGrid(std::int64_t width, int each, unsigned threads) {
    while (x < threads && x * each < width) x *= 2;
    y = threads / x;
    columns_each = std::int64_t{x} * each;
    column_blocks = (width + columns_each - 1) / columns_each;
  }
  /// For one work item per row of threads.
  Grid launch_for(std::int64_t items) const {
    return {.blocks = blocks_for(items, y), .threads = x, .threads_y = y};
  }
};

/// First work item of this thread's row of the block, and the distance to its next one.
__device__ inline std::int64_t first_item() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
}
__device__ inline std::int64_t item_stride() {
  return static_cast<std::int64_t>(gridDim.x) * blockDim.y;
}

}  // namespace carousel
