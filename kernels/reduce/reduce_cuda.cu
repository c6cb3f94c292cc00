#include <cstdint>
#include <type_traits>

#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/reduce/reduce.h"

namespace carousel {
namespace {

// A block sums a tile of 256 columns over a group of rows: each warp strides over the rows, each
// lane holding 8 neighbouring columns, so that a warp reads 512 or 1,024 contiguous bytes of a row.
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kPerLane = 8;
constexpr int kTile = kWarp * kPerLane;

/// How the launch cuts the matrix. `out` is scratch if there are several groups.
struct ColumnSumPlan {
  std::int64_t tiles, groups, rows_per_group;
};

struct ColumnSumShared {
  float part[kWarps][kTile];
};

template <class T>
__global__ void column_sum_group_kernel(const __grid_constant__ ColumnSum<T> op,
                                        const __grid_constant__ ColumnSumPlan plan) {
  const std::int64_t rows = op.x.extent[0], columns = op.x.extent[1];
  const std::int64_t group = blockIdx.x / plan.tiles;
  const std::int64_t tile = (blockIdx.x % plan.tiles) * kTile;
  const std::int64_t last_of_group = (group + 1) * plan.rows_per_group;
  const std::int64_t last = last_of_group < rows ? last_of_group : rows;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int in_tile = static_cast<int>(threadIdx.x) % kWarp * kPerLane;
  const T* const __restrict__ x = op.x.data;

  float sum[kPerLane] = {};
  for (std::int64_t n = group * plan.rows_per_group + warp; n < last; n += kWarps) {
    float values[kPerLane];
    const std::int64_t column = tile + in_tile;
    load<kPerLane>(x + n * columns + column, columns - column, values);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) sum[i] += values[i];
  }

  auto& shared = dynamic_shared<ColumnSumShared>();
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) shared.part[warp][in_tile + i] = sum[i];
  __syncthreads();
  static_assert(kThreads == kTile);
  const std::int64_t column = tile + threadIdx.x;
  if (column >= columns) return;
  float total = 0.0F;
  for (int w = 0; w < kWarps; ++w) total += shared.part[w][threadIdx.x];
  if (plan.groups > 1) {
    op.scratch.data[group * columns + column] = total;
  } else {
    op.sum.view(column) = total + (op.sum.accumulate ? op.sum.view(column) : 0.0F);
  }
}

/// A thread per column.
template <class T>
__global__ void column_sum_combine_kernel(const __grid_constant__ ColumnSum<T> op,
                                          const __grid_constant__ ColumnSumPlan plan) {
  const std::int64_t columns = op.x.extent[1];
  const std::int64_t column = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (column >= columns) return;
  float total = 0.0F;
  for (std::int64_t g = 0; g < plan.groups; ++g) total += op.scratch.data[g * columns + column];
  op.sum.view(column) = total + (op.sum.accumulate ? op.sum.view(column) : 0.0F);
}

}  // namespace

template <class T>
void ColumnSum<T>::run(const Cuda& device) const {
  const auto [rows, columns] = x.extent;
  const std::int64_t groups = column_sum_groups(rows, columns);
  expect_at_least("reduce: length of scratch", scratch.extent[0],
                  column_sum_scratch(rows, columns));
  const ColumnSumPlan plan{.tiles = (columns + kTile - 1) / kTile,
                           .groups = groups,
                           .rows_per_group = (rows + groups - 1) / groups};
  launch(device,
         {.blocks = plan.tiles * plan.groups,
          .threads = kThreads,
          .shared_bytes = sizeof(ColumnSumShared)},
         column_sum_group_kernel<T>, *this, plan);
  if (groups > 1) {
    launch(device, {.blocks = plan.tiles, .threads = kThreads}, column_sum_combine_kernel<T>, *this,
           plan);
  }
}

template void ColumnSum<float>::run(const Cuda&) const;
template void ColumnSum<bf16>::run(const Cuda&) const;

}  // namespace carousel
