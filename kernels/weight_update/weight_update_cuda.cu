#include <algorithm>
#include <utility>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/rows.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/weight_update/weight_update.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kEach = 8;  // what one 128-bit store of the bf16 copy holds

// Eight blocks on each of up to 256 SMs, whatever the size. The bias corrections, some forty
// dependent products in double, are one thread's work per block; with a few waves of blocks they
// are done often enough to need no launch of their own and seldom enough to cost nothing.
constexpr std::int64_t kBlocks = 2048;

template <class Rule, class T>
struct Shared {
  typename WeightUpdate<Rule, T>::Numbers numbers;
};

template <class Rule, class T>
__device__ typename WeightUpdate<Rule, T>::Numbers numbers_of(const WeightUpdate<Rule, T>& op) {
  auto& shared = dynamic_shared<Shared<Rule, T>>();
  if (threadIdx.x == 0 && threadIdx.y == 0) shared.numbers = op.numbers();
  __syncthreads();
  return shared.numbers;
}

/// Eight weights, or the `left` that there are, from `first` on: two 128-bit accesses of each float
/// array and one of the copy.
template <class Rule, class T, std::size_t... S>
__device__ void update(const WeightUpdate<Rule, T>& op,
                       const typename WeightUpdate<Rule, T>::Numbers& numbers, std::int64_t first,
                       const T* from, std::int64_t left, std::index_sequence<S...>) {
  T weight[kEach], gradient[kEach], state[Rule::kStates + 1][kEach];
  load(op.weight.data + first, left, weight);
  load(from, left, gradient);
  (load(op.state[S].data + first, left, state[S]), ...);
#pragma unroll
  for (int i = 0; i < kEach; ++i) numbers.update(gradient[i], weight[i], state[S][i]...);
  store(op.weight.data + first, left, weight);
  (store(op.state[S].data + first, left, state[S]), ...);
  if (op.working.present()) store(op.working.data + first, left, weight);
}

// One thread per eight elements of the whole.
template <class Rule, class T>
__global__ void weight_update_kernel(const __grid_constant__ WeightUpdate<Rule, T> op) {
  const auto numbers = numbers_of(op);
  const std::int64_t end = numbers.skip ? 0 : op.weight.size();
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads * kEach;
  std::int64_t n = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kEach;
  for (; n < end; n += stride) {
    update(op, numbers, n, op.gradient.data + n, end - n,
           std::make_index_sequence<Rule::kStates>());
  }
}

// One row of threads per touched row; their number is read on the device.
template <class Rule, class T>
__global__ void weight_update_rows_kernel(const __grid_constant__ WeightUpdate<Rule, T> op) {
  const auto numbers = numbers_of(op);
  const std::int64_t rows = numbers.skip ? 0 : op.row_count.data[0];
  const std::int64_t width = op.weight.extent[1];
  for (std::int64_t r = first_item(); r < rows; r += item_stride()) {
    for (std::int64_t c = threadIdx.x * kEach; c < width; c += blockDim.x * kEach) {
      update(op, numbers, op.row.data[r] * width + c, op.gradient.data + r * width + c, width - c,
             std::make_index_sequence<Rule::kStates>());
    }
  }
}

// One thread per eight elements of the whole.
__global__ void weight_average_kernel(const __grid_constant__ WeightAverage<float> op) {
  const float share = op.share();
  const std::int64_t end = share == 0.0F ? 0 : op.weight.size();
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads * kEach;
  std::int64_t n = (static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kEach;
  for (; n < end; n += stride) {
    float weight[kEach], average[kEach];
    load(op.weight.data + n, end - n, weight);
    load(op.average.data + n, end - n, average);
#pragma unroll
    for (int i = 0; i < kEach; ++i) op.update(share, weight[i], average[i]);
    store(op.average.data + n, end - n, average);
  }
}

}  // namespace

template <>
void WeightAverage<float>::run(const Cuda& device) const {
  launch(device,
         {.blocks = blocks_for(weight.size(), kThreads * kEach, kBlocks), .threads = kThreads},
         weight_average_kernel, *this);
}

template <class Rule, class T>
void WeightUpdate<Rule, T>::run(const Cuda& device) const {
  constexpr std::size_t kShared = sizeof(Shared<Rule, T>);
  if (!row.present()) {
    launch(device,
           {.blocks = blocks_for(weight.size(), kThreads * kEach, kBlocks),
            .threads = kThreads,
            .shared_bytes = kShared},
           weight_update_kernel<Rule, T>, *this);
    return;
  }
  note_row_width<float>("E", weight.extent[1]);
  const RowGrid rows(weight.extent[1], kEach, kThreads);
  Grid grid = rows.launch_for(row.extent[0]);
  grid.blocks = std::min(grid.blocks, kBlocks);
  grid.shared_bytes = kShared;
  launch(device, grid, weight_update_rows_kernel<Rule, T>, *this);
}

template void WeightUpdate<Sgd, float>::run(const Cuda&) const;
template void WeightUpdate<Momentum, float>::run(const Cuda&) const;
template void WeightUpdate<Adam, float>::run(const Cuda&) const;
template void WeightUpdate<RmsProp<false, false>, float>::run(const Cuda&) const;
template void WeightUpdate<RmsProp<false, true>, float>::run(const Cuda&) const;
template void WeightUpdate<RmsProp<true, false>, float>::run(const Cuda&) const;
template void WeightUpdate<RmsProp<true, true>, float>::run(const Cuda&) const;
template void WeightUpdate<Adagrad, float>::run(const Cuda&) const;

}  // namespace carousel
