#include <algorithm>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/matmul/matmul.h"
#include "kernels/sample/selection.h"
#include "kernels/top_k/top_k.h"

namespace carousel {
namespace {

// One block per query. Each stage counts the keys of the row by their next 11 bits and finds the bin
// that the K largest reach down to. Once no more keys than kListed lie in that bin or above, these are
// copied to shared memory and sorted. Keys are all different, and bins hold integers: threads may
// come in any order.
constexpr int kThreads = 512;
constexpr int kDigitBits = 11;
constexpr int kBins = 1 << kDigitBits;
constexpr int kKeyBits = 32 + sampling::kIndexBits;
constexpr unsigned kListed = 2048;
static_assert(kListed >= TopK<float>::kMost);

/// A key's digits are looked at from the highest; those above `shift` are known to be `above`'s.
struct Prefix {
  std::uint64_t above = 0;
  int shift = kKeyBits;

  __device__ bool matches(std::uint64_t key) const { return key >> shift == above >> shift; }
};

struct Shared {
  unsigned bins[kBins];
  unsigned bad, listed;
  int bin;                     // where the K largest end
  unsigned through, in_above;  // keys in this bin or above it, and above it alone
  std::uint64_t list[kListed];
};

struct Row {
  const float* scores;
  const std::int32_t* excluded;
  std::int64_t rows, exclusions;

  /// Calls body(key) for this thread's share of the rows that may be chosen, bad() for a NaN.
  template <class Body, class Bad>
  __device__ void each(const Body& body, const Bad& bad) const {
    for (std::int64_t v = threadIdx.x; v < rows; v += kThreads) {
      const float score = scores[v];
      if (isnan(score)) {
        bad();
        continue;
      }
      bool out = false;
      for (std::int64_t x = 0; x < exclusions; ++x) out |= excluded[x] == v;
      if (!out) body(sampling::preference(score, v));
    }
  }
};

/// Clears what a stage counts. Ends with a barrier.
__device__ void clear(Shared& shared) {
  __syncthreads();  // what was found may still be being read
  for (int b = static_cast<int>(threadIdx.x); b < kBins; b += kThreads) shared.bins[b] = 0;
  if (threadIdx.x == 0) shared.listed = 0;
  __syncthreads();
}

/// The bin in which the running count, from the highest bin down, reaches `need`, or the lowest bin
/// if it never does. By the first warp, a bin a lane; all threads wait for it.
__device__ void find(Shared& shared, unsigned need) {
  __syncthreads();
  if (threadIdx.x < kWarp) {
    const int lane = static_cast<int>(threadIdx.x);
    unsigned before = 0;
    for (int top = kBins - 1; top >= 0; top -= kWarp) {
      const unsigned own = shared.bins[top - lane];
      unsigned through = own;
      for (unsigned lanes = 1; lanes < kWarp; lanes *= 2) {
        const unsigned other = __shfl_up_sync(0xFFFFFFFFU, through, lanes);
        if (lane >= static_cast<int>(lanes)) through += other;
      }
      const bool last = top < kWarp && lane == kWarp - 1;
      const bool here = before + through - own < need && need <= before + through;
      const unsigned all = __shfl_sync(0xFFFFFFFFU, through, kWarp - 1);
      if (here || (last && before + all < need)) {
        shared.bin = top - lane;
        shared.through = before + through;
        shared.in_above = before + through - own;
      }
      before += all;
      if (before >= need) break;  // the same for all lanes
    }
  }
  __syncthreads();
}

/// The least key of the bin that the `kept` largest reach down to; all keys from it on fit the list.
__device__ std::uint64_t threshold(const Row& row, unsigned kept, Shared& shared) {
  Prefix prefix;
  unsigned need = kept;  // of them, in the bins that are still open
  while (prefix.shift > 0) {
    clear(shared);
    const int shift = prefix.shift > kDigitBits ? prefix.shift - kDigitBits : 0;
    const auto mask = (1U << (prefix.shift - shift)) - 1;
    row.each(
        [&](std::uint64_t key) {
          if (!prefix.matches(key)) return;
          atomicAdd(&shared.bins[static_cast<unsigned>(key >> shift) & mask], 1U);
        },
        [&] { atomicOr(&shared.bad, 1U); });
    find(shared, need);
    prefix = {.above = prefix.above | static_cast<std::uint64_t>(shared.bin) << shift,
              .shift = shift};
    if (kept - need + shared.through <= kListed)
      break;  // what lies above earlier bins is listed too
    need -= shared.in_above;
  }
  return prefix.above;
}

/// Sorts the first `count` of the list, a power of two, the largest first.
__device__ void sort(Shared& shared, unsigned count) {
  for (unsigned run = 2; run <= count; run *= 2) {
    for (unsigned step = run / 2; step > 0; step /= 2) {
      __syncthreads();
      for (unsigned i = threadIdx.x; i < count / 2; i += kThreads) {
        const unsigned low = i / step * 2 * step + i % step, high = low + step;
        const std::uint64_t a = shared.list[low], b = shared.list[high];
        if ((a < b) != ((low & run) != 0)) {
          shared.list[low] = b;
          shared.list[high] = a;
        }
      }
    }
  }
  __syncthreads();
}

/// The K largest keys of a row, at the front of the list, behind them zeros; returns whether the row
/// has a NaN.
__device__ bool choose(const Row& row, unsigned need, Shared& shared) {
  __syncthreads();
  if (threadIdx.x == 0) shared.bad = 0;
  const std::uint64_t least = threshold(row, need, shared);
  clear(shared);
  row.each(
      [&](std::uint64_t key) {
        if (key >= least) shared.list[atomicAdd(&shared.listed, 1U)] = key;
      },
      [] {});
  __syncthreads();
  const unsigned listed = shared.listed;
  unsigned count = 1;
  while (count < listed || count < need) count *= 2;
  for (unsigned i = listed + threadIdx.x; i < count; i += kThreads) shared.list[i] = 0;
  sort(shared, count);
  return shared.bad != 0;
}

template <class T>
__global__ void top_k_kernel(const __grid_constant__ TopK<T> op) {
  auto& shared = dynamic_shared<Shared>();
  const std::int64_t rows = op.all.extent[1], kept = op.index.extent[1];
  const std::int64_t exclusions = op.excluded.extent[1];
  for (std::int64_t n = blockIdx.x; n < op.all.extent[0]; n += gridDim.x) {
    const Row row{op.all.data + n * rows, op.excluded.data + n * exclusions, rows, exclusions};
    const bool bad = choose(row, static_cast<unsigned>(kept), shared);
    for (std::int64_t k = threadIdx.x; k < kept; k += kThreads) {
      const std::uint64_t key = shared.list[k];
      const bool none = bad || key == 0;
      op.index.data[n * kept + k] = none ? -1 : static_cast<std::int32_t>(sampling::index_of(key));
      op.score.data[n * kept + k] = bad ? NAN : none ? -INFINITY : sampling::logit_of(key);
    }
  }
}

}  // namespace

template <class T>
void TopK<T>::run(const Cuda& device) const {
  if (!scored()) {
    Matmul<T, float>{.a = query, .b = table, .c = all, .transpose_b = true}.run(device);
  }
  launch(
      device,
      {.blocks = blocks_for(all.extent[0], 1), .threads = kThreads, .shared_bytes = sizeof(Shared)},
      top_k_kernel<T>, *this);
}

template void TopK<float>::run(const Cuda&) const;
template void TopK<bf16>::run(const Cuda&) const;

}  // namespace carousel
