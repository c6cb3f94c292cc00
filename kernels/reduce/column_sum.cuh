#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/reduce/reduce.h"

// Sums over the rows of a matrix, one or several for each column, on CUDA: for ColumnSum and for ops
// whose terms are not stored anywhere. A block sums a tile of 256 columns over a group of rows: each
// warp strides over the rows, each lane holding 8 neighbouring columns, so that a warp reads 512 or
// 1,024 contiguous bytes of a row. Where there are several groups, a second kernel adds them.
namespace carousel::column_sum {

inline constexpr int kThreads = 256;
inline constexpr int kWarps = kThreads / kWarp;
inline constexpr int kPerLane = 8;
inline constexpr int kTile = kWarp * kPerLane;

template <int kSums>
struct Shared {
  float part[kSums][kWarps][kTile];
};

/// What is summed, and how the launch cuts it.
template <int kSums>
struct Plan {
  std::int64_t rows, columns, tiles, groups, rows_per_group;
  Gradient<float, 1> sum[kSums];  ///< [C] out; may be absent
  float* scratch;                 ///< [groups, kSums, C] if there are several groups

  Plan(std::int64_t n, std::int64_t c, float* memory)
      : rows(n),
        columns(c),
        tiles((c + kTile - 1) / kTile),
        groups(column_sum_groups(n, c)),
        rows_per_group((n + groups - 1) / groups),
        scratch(memory) {}

  Grid grid() const {
    return {.blocks = tiles * groups, .threads = kThreads, .shared_bytes = sizeof(Shared<kSums>)};
  }
  Grid combining_grid() const { return {.blocks = tiles, .threads = kThreads}; }

  __device__ void write(int s, std::int64_t column, float total) const {
    if (!sum[s].present()) return;
    sum[s].view(column) = total + (sum[s].accumulate ? sum[s].view(column) : 0.0F);
  }
};

/// The sums of one group. `add(n, column, sum)` adds row n's terms of 8 columns, or of those that
/// there are, to sum[kSums][8].
template <int kSums, class Add>
__device__ void sum_group(const Plan<kSums>& plan, const Add& add) {
  const std::int64_t group = blockIdx.x / plan.tiles;
  const std::int64_t tile = (blockIdx.x % plan.tiles) * kTile;
  const std::int64_t last_of_group = (group + 1) * plan.rows_per_group;
  const std::int64_t last = last_of_group < plan.rows ? last_of_group : plan.rows;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int in_tile = static_cast<int>(threadIdx.x) % kWarp * kPerLane;

  float sum[kSums][kPerLane] = {};
  for (std::int64_t n = group * plan.rows_per_group + warp; n < last; n += kWarps) {
    add(n, tile + in_tile, sum);
  }

  auto& shared = dynamic_shared<Shared<kSums>>();
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) shared.part[s][warp][in_tile + i] = sum[s][i];
  }
  __syncthreads();
  static_assert(kThreads == kTile);
  const std::int64_t column = tile + threadIdx.x;
  if (column >= plan.columns) return;
  for (int s = 0; s < kSums; ++s) {
    float total = 0.0F;
    for (int w = 0; w < kWarps; ++w) total += shared.part[s][w][threadIdx.x];
    if (plan.groups > 1) {
      plan.scratch[(group * kSums + s) * plan.columns + column] = total;
    } else {
      plan.write(s, column, total);
    }
  }
}

/// The groups' sums, added: a thread per column.
template <int kSums>
__device__ void combine_groups(const Plan<kSums>& plan) {
  const std::int64_t column = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (column >= plan.columns) return;
  for (int s = 0; s < kSums; ++s) {
    float total = 0.0F;
    for (std::int64_t g = 0; g < plan.groups; ++g) {
      total += plan.scratch[(g * kSums + s) * plan.columns + column];
    }
    plan.write(s, column, total);
  }
}

}  // namespace carousel::column_sum
