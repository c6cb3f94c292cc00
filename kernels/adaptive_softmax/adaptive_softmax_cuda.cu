#include <algorithm>

#include "kernels/adaptive_softmax/route.h"
#include "kernels/common/cuda/rows.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/cross_entropy/row.cuh"

namespace carousel {
namespace {

constexpr int kThreads = 256;

struct RouteShared {
  std::int32_t sum[kThreads];
};

// The sum of the values of this thread and those before it. All threads of the block take part.
__device__ std::int32_t sum_up_to(std::int32_t value, RouteShared& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  shared.sum[thread] = value;
  __syncthreads();
  for (int back = 1; back < kThreads; back *= 2) {
    const std::int32_t before = thread >= back ? shared.sum[thread - back] : 0;
    __syncthreads();
    shared.sum[thread] += before;
    __syncthreads();
  }
  return shared.sum[thread];
}

// One block per cluster, and one for the head. Each thread has neighbouring rows, so that the order
// within a cluster is that of the rows; they are few beside what follows.
template <class A>
__global__ void __launch_bounds__(kThreads)
    adaptive_route_kernel(const __grid_constant__ AdaptiveRoute<A> op) {
  auto& shared = dynamic_shared<RouteShared>();
  const int k = static_cast<int>(blockIdx.x);
  const bool head = k == op.cutoffs.clusters;
  const std::int64_t rows = op.target.extent[0], each = (rows + kThreads - 1) / kThreads;
  const std::int64_t first = min(rows, threadIdx.x * each), last = min(rows, first + each);
  std::int32_t mine = 0;
  for (std::int64_t n = first; n < last; ++n) {
    const std::int32_t word = op.target(n);
    if (head) op.head_target(n) = adaptive_softmax::head_target(op.cutoffs, word);
    mine += (head ? word != kIgnoreTarget : op.cutoffs.has(k, word)) ? 1 : 0;
  }
  const std::int32_t until = sum_up_to(mine, shared);
  const std::int32_t total = shared.sum[kThreads - 1];
  if (head) {
    if (threadIdx.x == 0) op.counted(0) = static_cast<A>(total);
    return;  // no barrier follows
  }
  std::int32_t m = until - mine;
  for (std::int64_t n = first; n < last; ++n) {
    if (op.cutoffs.has(k, op.target(n))) {
      adaptive_softmax::put(op, k, n, m++);
    } else {
      op.place(k, n) = -1;
    }
  }
  for (std::int64_t rest = total + threadIdx.x; rest < rows; rest += kThreads) {
    adaptive_softmax::put_none(op, k, rest);
  }
  if (threadIdx.x == 0) op.count(k) = total;
}

constexpr unsigned kRowThreads = 256;  // no shared memory and few registers: any size fills an SM

// Threads along a row, several rows in a block if rows are narrow.
template <class T>
__global__ void select_rows_kernel(const __grid_constant__ SelectRows<T> op) {
  const std::int64_t rows = op.to.view.extent[0], width = op.to.view.extent[1];
  for (std::int64_t n = first_item(); n < rows; n += item_stride()) {
    const std::int64_t from = op.row.data[n];
    const bool exists = from >= 0 && from < op.from.extent[0];
    if (op.to.accumulate && !exists) continue;
    const T* const in = op.from.data + (exists ? from * width : 0);
    T* const out = op.to.view.data + n * width;
    for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      const float value = exists ? static_cast<float>(in[i]) : 0.0F;
      out[i] = static_cast<T>(op.to.accumulate ? static_cast<float>(out[i]) + value : value);
    }
  }
}

// One thread set per row, as row.cuh has it.
template <class T, int kRowThreads>
__global__ void __launch_bounds__(row::kBlockThreads<kRowThreads>)
    adaptive_log_probabilities_kernel(const __grid_constant__ AdaptiveLogProbabilities<T> op) {
  auto& shared = dynamic_shared<row::Shared<kRowThreads>>();
  const std::int64_t width = op.cutoffs.head(), vocab = op.cutoffs.vocabulary();
  const bool in_tail = op.tail.present();
  const std::int64_t first = in_tail ? op.cutoffs.first(op.cluster) : 0;
  const std::int64_t words = in_tail ? op.cutoffs.words(op.cluster) : op.cutoffs.shortlist();
  row::for_each_row<kRowThreads>(op.head.extent[0], [&](std::int64_t b) {
    const T* const head = op.head.data + b * width;
    const T* own = head;
    row::Sums sums = row::sum_row<kRowThreads, kVector<T>>(head, width, 0.0F, false, shared);
    float given = 0.0F;
    if (in_tail) {
      const auto entry = static_cast<float>(head[op.cutoffs.shortlist() + op.cluster]);
      given = (entry - sums.max) - logf(sums.sum);
      own = op.tail.data + b * words;
      sums = row::sum_row<kRowThreads, kVector<T>>(own, words, 0.0F, false, shared);
    }
    const float max = sums.max, log_sum = logf(sums.sum);
    float* const out = op.y.data + b * vocab + first;
    for (std::int64_t w = threadIdx.x % kRowThreads; w < words; w += kRowThreads) {
      out[w] = given + ((static_cast<float>(own[w]) - max) - log_sum);
    }
  });
}

}  // namespace

template <class A>
void AdaptiveRoute<A>::run(const Cuda& device) const {
  launch(device,
         {.blocks = cutoffs.clusters + 1, .threads = kThreads, .shared_bytes = sizeof(RouteShared)},
         adaptive_route_kernel<A>, *this);
}

template <class T>
void SelectRows<T>::run(const Cuda& device) const {
  const RowGrid grid(to.view.extent[1], 1, kRowThreads);
  launch(device, grid.launch_for(to.view.extent[0]), select_rows_kernel<T>, *this);
}

template <class T>
void AdaptiveLogProbabilities<T>::run(const Cuda& device) const {
  const std::int64_t widest = std::max(head.extent[1], tail.extent[1]);
  row::with_row_threads(widest, [&]<int kThreadsOfRow>(std::integral_constant<int, kThreadsOfRow>) {
    launch(device, row::grid<kThreadsOfRow, row::Shared<kThreadsOfRow>>(head.extent[0]),
           adaptive_log_probabilities_kernel<T, kThreadsOfRow>, *this);
  });
}

template void AdaptiveRoute<float>::run(const Cuda&) const;
template void SelectRows<float>::run(const Cuda&) const;
template void SelectRows<bf16>::run(const Cuda&) const;
template void AdaptiveLogProbabilities<float>::run(const Cuda&) const;
template void AdaptiveLogProbabilities<bf16>::run(const Cuda&) const;

}  // namespace carousel
