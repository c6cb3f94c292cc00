#include <cstdint>

#include "kernels/common/check.h"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/reduce/column_sum.cuh"

namespace carousel {
namespace {

template <class T>
__global__ void column_sum_group_kernel(const __grid_constant__ ColumnSum<T> op,
                                        const __grid_constant__ column_sum::Plan<1> plan) {
  const T* const __restrict__ x = op.x.data;
  const std::int64_t columns = op.x.extent[1];
  column_sum::sum_group(plan, [&](std::int64_t n, std::int64_t column, auto& sum) {
    float values[column_sum::kPerLane];
    load<column_sum::kPerLane>(x + n * columns + column, columns - column, values);
#pragma unroll
    for (int i = 0; i < column_sum::kPerLane; ++i) sum[0][i] += values[i];
  });
}

__global__ void column_sum_combine_kernel(const __grid_constant__ column_sum::Plan<1> plan) {
  column_sum::combine_groups(plan);
}

}  // namespace

template <class T>
void ColumnSum<T>::run(const Cuda& device) const {
  const auto [rows, columns] = x.extent;
  expect_at_least("reduce: length of scratch", scratch.extent[0],
                  column_sum_scratch(rows, columns));
  column_sum::Plan<1> plan(rows, columns, scratch.data);
  plan.sum[0] = sum;
  launch(device, plan.grid(), column_sum_group_kernel<T>, *this, plan);
  if (plan.groups > 1) launch(device, plan.combining_grid(), column_sum_combine_kernel, plan);
}

template void ColumnSum<float>::run(const Cuda&) const;
template void ColumnSum<bf16>::run(const Cuda&) const;

}  // namespace carousel
