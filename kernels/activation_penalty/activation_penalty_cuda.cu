#include <algorithm>

#include "kernels/activation_penalty/activation_penalty.h"
#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/common/scratch.h"

namespace carousel {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kMostBlocks = 1024;  // eight to an SM of the largest cards

/// What an op keeps in scratch.
struct Parts {
  std::int64_t* count;  ///< [1] steps or pairs that the mean is over
  double* partial;      ///< [blocks] sums of squares
};

template <class T>
struct Plan {
  ActivationPenalty<T> op;
  std::int64_t columns;  ///< vectors of kVector<T> units in a row
  std::int64_t blocks;
  Parts parts{};

  Plan(ScratchCutter& cut, const ActivationPenalty<T>& of)
      : op(of),
        columns((of.h.extent[2] + kVector<T> - 1) / kVector<T>),
        blocks(std::max<std::int64_t>(
            1, blocks_for(of.h.extent[0] * of.h.extent[1] * columns, kThreads, kMostBlocks))),
        parts{cut.take<std::int64_t>(1), cut.take<double>(blocks)} {}
};

struct CountShared {
  BlockReduceStorage<std::int64_t, kThreads> reduce;
};
struct SumShared {
  BlockReduceStorage<double, kThreads> reduce;
};

// One block: the rows' lengths or, if rows reset, all pairs.
template <class T>
__global__ void activation_penalty_count_kernel(const __grid_constant__ Plan<T> plan) {
  const Steps steps = plan.op.steps();
  const bool temporal = plan.op.kind == PenaltyKind::temporal;
  std::int64_t count = 0;
  if (temporal && steps.reset.present()) {
    for (std::int64_t n = threadIdx.x; n < steps.count * steps.batch; n += kThreads) {
      count += steps.joined(n / steps.batch, n % steps.batch) ? 1 : 0;
    }
  } else {
    for (std::int64_t b = threadIdx.x; b < steps.batch; b += kThreads) {
      const std::int64_t of_row = steps.last(b) - steps.first(b) - (temporal ? 1 : 0);
      count += of_row > 0 ? of_row : 0;
    }
  }
  count = block_reduce<kThreads>(count, Sum{}, dynamic_shared<CountShared>().reduce);
  if (threadIdx.x == 0) plan.parts.count[0] = count;
}

// One thread per 128 bits of h at a time. A step's neighbours are other threads' values: they come
// from the second-level cache, which holds a window of hidden states.
template <class T, PenaltyKind kKind>
__global__ void activation_penalty_kernel(const __grid_constant__ Plan<T> plan) {
  constexpr int kWide = kVector<T>;
  const ActivationPenalty<T>& op = plan.op;
  const Steps steps = op.steps();
  const std::int64_t width = op.h.extent[2], stride = steps.batch * width;
  const std::int64_t items = steps.count * steps.batch * plan.columns;
  const double terms = static_cast<double>(plan.parts.count[0] * width);
  const float factor =
      terms == 0 ? 0.0F : static_cast<float>(2 * static_cast<double>(op.weight) * (1 / terms));
  double sum = 0;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < items;
       i += std::int64_t{kThreads} * gridDim.x) {
    const std::int64_t n = i / plan.columns, c = (i - n * plan.columns) * kWide;
    const std::int64_t t = n / steps.batch, b = n - t * steps.batch;
    const std::int64_t at = n * width + c, count = width - c;
    const bool there = steps.contains(t, b);
    float slope[kWide] = {};
    if (there) {
      float h[kWide], other[kWide];
      load(op.h.data + at, count, h);
      if constexpr (kKind == PenaltyKind::activation) {
#pragma unroll
        for (int k = 0; k < kWide; ++k) {
          slope[k] = h[k];
          sum += static_cast<double>(h[k] * h[k]);
        }
      } else {
        if (t > 0 && steps.joined(t - 1, b)) {
          load(op.h.data + at - stride, count, other);
#pragma unroll
          for (int k = 0; k < kWide; ++k) slope[k] = h[k] - other[k];
        }
        if (steps.joined(t, b)) {
          load(op.h.data + at + stride, count, other);
#pragma unroll
          for (int k = 0; k < kWide; ++k) {
            const float change = other[k] - h[k];
            slope[k] -= change;
            sum += static_cast<double>(change * change);
          }
        }
      }
    }
    if (!op.d_h.present() || (!there && op.d_h.accumulate)) continue;
    T* const d = op.d_h.view.data + at;
    float result[kWide];
    if (op.d_h.accumulate) load(d, count, result);
#pragma unroll
    for (int k = 0; k < kWide; ++k) {
      result[k] = op.d_h.accumulate ? fmaf(factor, slope[k], result[k]) : factor * slope[k];
    }
    store(d, count, result);
  }
  sum = block_reduce<kThreads>(sum, Sum{}, dynamic_shared<SumShared>().reduce);
  if (threadIdx.x == 0) plan.parts.partial[blockIdx.x] = sum;
}

// One block. A launch of its own costs a microsecond, and no counter has to be kept at zero.
template <class T>
__global__ void activation_penalty_finish_kernel(const __grid_constant__ Plan<T> plan) {
  double sum = 0;
  for (std::int64_t p = threadIdx.x; p < plan.blocks; p += kThreads) sum += plan.parts.partial[p];
  sum = block_reduce<kThreads>(sum, Sum{}, dynamic_shared<SumShared>().reduce);
  if (threadIdx.x != 0) return;
  const double terms = static_cast<double>(plan.parts.count[0] * plan.op.h.extent[2]);
  plan.op.penalty.data[0] = terms == 0 ? 0.0F : static_cast<float>(sum / terms);
}

}  // namespace

template <class T>
std::size_t ActivationPenalty<T>::scratch_bytes(const Cuda&) const {
  ScratchCutter cut;
  Plan<T>(cut, *this);
  return cut.bytes();
}

template <class T>
void ActivationPenalty<T>::run(const Cuda& device) const {
  ScratchCutter cut(device, scratch);
  const Plan<T> plan(cut, *this);
  cut.expect_enough("activation_penalty: scratch bytes");
  note_row_width<T>("H", h.extent[2]);
  launch(device, {.threads = kThreads, .shared_bytes = sizeof(CountShared)},
         activation_penalty_count_kernel<T>, plan);
  launch(device, {.blocks = plan.blocks, .threads = kThreads, .shared_bytes = sizeof(SumShared)},
         kind == PenaltyKind::activation ? activation_penalty_kernel<T, PenaltyKind::activation>
                                         : activation_penalty_kernel<T, PenaltyKind::temporal>,
         plan);
  launch(device, {.threads = kThreads, .shared_bytes = sizeof(SumShared)},
         activation_penalty_finish_kernel<T>, plan);
}

template void ActivationPenalty<float>::run(const Cuda&) const;
template void ActivationPenalty<bf16>::run(const Cuda&) const;
template std::size_t ActivationPenalty<float>::scratch_bytes(const Cuda&) const;
template std::size_t ActivationPenalty<bf16>::scratch_bytes(const Cuda&) const;

}  // namespace carousel
