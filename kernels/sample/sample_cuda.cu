#include <algorithm>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/sample/sample.h"
#include "kernels/sample/selection.h"

namespace carousel {
namespace {

using sampling::Cut;
using sampling::Found;
using sampling::kBins;
using sampling::Weight;

// One block per row. Generation has few rows, and a pass over a row of 50,000 tokens that lies in
// cache takes such a block two microseconds; a row in a generating step costs far more to compute.
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBinsEach = kBins / kThreads;

/// What the first pass over a row finds.
struct Best {
  std::uint64_t preference;
  std::uint32_t bad;
  std::uint32_t unused;
};
struct MergeBest {
  __device__ Best operator()(const Best& a, const Best& b) const {
    return {a.preference > b.preference ? a.preference : b.preference, a.bad | b.bad, 0};
  }
};

struct Shared {
  Weight sum[kBins];
  unsigned tokens[kBins];
  Weight warp[kWarps];
  Found found;
  BlockReduceStorage<Best, kThreads> reduce;
};

__device__ void clear(Shared& shared) {
  for (int b = static_cast<int>(threadIdx.x); b < kBins; b += kThreads) {
    shared.sum[b] = 0;
    shared.tokens[b] = 0;
  }
  __syncthreads();
}

/// The bin in which the running sum reaches need(total). Called by all threads; waits for what they
/// have put into the bins.
template <class Need>
__device__ Found find(Shared& shared, const Need& need_of) {
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const Weight* const mine = shared.sum + threadIdx.x * kBinsEach;
  Weight own = 0;
  for (int b = 0; b < kBinsEach; ++b) own += mine[b];
  Weight through = own;  // … this thread, in its warp
  for (unsigned lanes = 1; lanes < kWarp; lanes *= 2) {
    const Weight other = __shfl_up_sync(0xFFFFFFFFU, through, lanes);
    if (lane >= static_cast<int>(lanes)) through += other;
  }
  if (lane == kWarp - 1) shared.warp[warp] = through;
  __syncthreads();
  Weight before = through - own, total = 0;
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += shared.warp[w];
    total += shared.warp[w];
  }
  const Weight need = need_of(total);
  if (before < need && need <= before + own) {  // true of one thread
    int b = 0;
    for (; before + mine[b] < need; ++b) before += mine[b];
    const int bin = static_cast<int>(threadIdx.x) * kBinsEach + b;
    shared.found = {bin, before, mine[b], total, shared.tokens[bin]};
  }
  __syncthreads();
  return shared.found;
}

template <class T>
struct Row {
  const Sample<T>& op;
  std::int64_t row;
  float scale;
  float largest;

  __device__ std::uint64_t preference(std::int64_t v) const {
    return sampling::preference(sampling::logit(op, row, v), v);
  }
  __device__ std::uint32_t distance(std::int64_t v) const {
    return sampling::distance(largest, sampling::logit(op, row, v), scale);
  }
  __device__ Weight kept_weight(const Cut& kept, std::int64_t v) const {
    const std::uint32_t d = distance(v);
    return kept.keeps(d, preference(v)) ? sampling::weight(d) : 0;
  }
};

template <class T>
__device__ Best most_preferred(const Sample<T>& op, std::int64_t row, Shared& shared) {
  const std::int64_t vocabulary = op.logits.extent[1];
  Best best{0, 0, 0};
  for (std::int64_t v = threadIdx.x; v < vocabulary; v += kThreads) {
    // The suppressed token is looked at too, for being a number.
    const float raw = static_cast<float>(op.logits.data[row * vocabulary + v]);
    const float logit = sampling::logit(op, row, v);
    if (!(raw < INFINITY)) best.bad = 1;
    if (logit > -INFINITY) {
      const std::uint64_t preference = sampling::preference(logit, v);
      if (preference > best.preference) best.preference = preference;
    }
  }
  return block_reduce<kThreads>(best, MergeBest{}, shared.reduce);
}

/// The smallest set of most preferred tokens within `base` that reaches need(total) when
/// value(distance) is summed, total being its sum over all of `base`.
template <class T, class Need, class Value>
__device__ Cut select(const Row<T>& row, const Cut& base, const Need& need_of, const Value& value,
                      Shared& shared) {
  Cut cut;
  Weight need = 0;
  for (int stage = 0; stage < Cut::kStages; ++stage) {
    clear(shared);
    for (std::int64_t v = threadIdx.x; v < row.op.logits.extent[1]; v += kThreads) {
      const std::uint32_t distance = row.distance(v);
      const std::uint64_t preference = row.preference(v);
      if (!base.keeps(distance, preference) || !cut.open(stage, distance, preference)) continue;
      const int bin = Cut::bin(stage, distance, preference);
      atomicAdd(&shared.sum[bin], value(distance));  // integers: the order does not matter
      atomicAdd(&shared.tokens[bin], 1U);
    }
    const Found found =
        find(shared, [&](Weight total) { return stage == 0 ? need_of(total) : need; });
    if (stage == 0) need = need_of(found.total);
    cut.narrow(stage, found.bin);
    need -= found.before;
    if (need == found.inside || found.tokens == 1) break;  // the whole bin is kept
  }
  return cut;
}

/// The first token at which the running sum of kept weights exceeds its total times word / 2³².
template <class T>
__device__ std::int64_t draw(const Row<T>& row, const Cut& kept, std::uint32_t word,
                             Shared& shared) {
  const std::int64_t vocabulary = row.op.logits.extent[1];
  const std::int64_t stretch = sampling::stretch(vocabulary);
  clear(shared);
  for (std::int64_t s = threadIdx.x / kWarp; s * stretch < vocabulary; s += kWarps) {
    const std::int64_t end = std::min((s + 1) * stretch, vocabulary);
    Weight sum = 0;
    for (std::int64_t v = s * stretch + threadIdx.x % kWarp; v < end; v += kWarp) {
      sum += row.kept_weight(kept, v);
    }
    sum = warp_reduce(sum, Sum{});
    if (threadIdx.x % kWarp == 0) shared.sum[s] = sum;
  }
  const Found within =
      find(shared, [&](Weight total) { return sampling::scaled(total, word) + 1; });
  const Weight need = sampling::scaled(within.total, word) + 1 - within.before;

  const std::int64_t first = within.bin * stretch, rest = vocabulary - first;
  clear(shared);
  for (std::int64_t i = threadIdx.x; i < std::min(stretch, rest); i += kThreads) {
    shared.sum[i] = row.kept_weight(kept, first + i);
  }
  return first + find(shared, [&](Weight) { return need; }).bin;
}

template <class T>
__global__ void sample_kernel(const __grid_constant__ Sample<T> op, float scale) {
  auto& shared = dynamic_shared<Shared>();
  for (std::int64_t n = blockIdx.x; n < op.logits.extent[0]; n += gridDim.x) {
    const Best best = most_preferred(op, n, shared);
    const bool none = best.bad != 0 || best.preference == 0;
    std::int64_t token = none ? -1 : sampling::index_of(best.preference);
    if (!none && !op.greedy) {  // the same for all threads of the block
      const Row<T> row{op, n, scale, sampling::logit(op, n, token)};
      Cut kept;
      const std::int64_t all = op.logits.extent[1], top_k = op.top_k == 0 ? all : op.top_k;
      if (top_k < all) {
        kept = select(
            row, kept, [&](Weight) { return static_cast<Weight>(top_k); },
            [](std::uint32_t) { return Weight{1}; }, shared);
      }
      if (op.top_p < 1) {
        kept = select(
            row, kept, [&](Weight total) { return sampling::needed_by_top_p(op.top_p, total); },
            [](std::uint32_t distance) { return sampling::weight(distance); }, shared);
      }
      const auto element = static_cast<std::uint64_t>(n);
      const auto words = op.random.words(element / 4, op.random.step.data[0]);
      token = draw(row, kept, words[element % 4], shared);
    }
    if (threadIdx.x == 0) op.token.data[n] = static_cast<std::int32_t>(token);
  }
}

}  // namespace

template <class T>
void Sample<T>::run(const Cuda& device) const {
  const float scale = greedy ? 0.0F : sampling::distance_scale(temperature);
  launch(device,
         {.blocks = blocks_for(logits.extent[0], 1),
          .threads = kThreads,
          .shared_bytes = sizeof(Shared)},
         sample_kernel<T>, *this, scale);
}

template void Sample<float>::run(const Cuda&) const;
template void Sample<bf16>::run(const Cuda&) const;

}  // namespace carousel
