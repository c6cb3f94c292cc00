#include <algorithm>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/sample/sample.h"
#include "kernels/sample/selection.h"

namespace carousel {
namespace {

using sampling::Cut;
using sampling::Found;
using sampling::kBins;
using sampling::Weight;

// One block per row, which reads it two or three times from cache: for the largest logit; with cuts
// for how many tokens lie how far below it, and for those that the cuts may keep, which then lie in
// shared memory; else for the sums of weights along the row. Generation has few rows, and a row in a
// generating step costs far more to compute than to read here.
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBinsEach = kBins / kThreads;
// Loads of a thread in flight: 32 KB a block of float, what one multiprocessor needs for its share of
// the cache's bandwidth.
constexpr int kLoads = 4;
/// Tokens that shared memory holds. Where cuts may keep more, the row is read again at each stage.
constexpr unsigned kListed = 2048;

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
  unsigned low[kBins], high[kBins];  // a bin's sum: shared memory adds 32 bits at once, not 64
  unsigned tokens[kBins];
  Weight warp[kWarps];
  unsigned warp_tokens[kWarps];
  Found found;
  std::uint64_t list[kListed];  // preferences
  unsigned listed;
  BlockReduceStorage<Best, kThreads> reduce;

  __device__ Weight sum(int bin) const { return Weight{high[bin]} << 32 | low[bin]; }
  __device__ void set(int bin, Weight weight) {
    low[bin] = static_cast<unsigned>(weight);
    high[bin] = static_cast<unsigned>(weight >> 32);
  }
  /// Integers: the order does not matter.
  __device__ void add(int bin, Weight weight) {
    const auto part = static_cast<unsigned>(weight);
    const unsigned before = atomicAdd(&low[bin], part);
    const unsigned carry = before + part < before ? 1 : 0;
    const unsigned rest = static_cast<unsigned>(weight >> 32) + carry;
    if (rest != 0) atomicAdd(&high[bin], rest);
    atomicAdd(&tokens[bin], 1U);
  }
};

__device__ void clear(Shared& shared) {
  for (int b = static_cast<int>(threadIdx.x); b < kBins; b += kThreads) {
    shared.set(b, 0);
    shared.tokens[b] = 0;
  }
  if (threadIdx.x == 0) shared.listed = 0;
  __syncthreads();
}

/// Sum of what the lanes before this one and this one have.
template <class T>
__device__ T through_lane(T value) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  for (unsigned lanes = 1; lanes < kWarp; lanes *= 2) {
    const T other = __shfl_up_sync(0xFFFFFFFFU, value, lanes);
    if (lane >= static_cast<int>(lanes)) value += other;
  }
  return value;
}

/// The bin in which the running sum reaches need(total). Called by all threads; waits for what they
/// have put into the bins.
template <class Need>
__device__ Found find(Shared& shared, const Need& need_of) {
  __syncthreads();
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  const int first = static_cast<int>(threadIdx.x) * kBinsEach;
  Weight own = 0;
  unsigned own_tokens = 0;
  for (int b = first; b < first + kBinsEach; ++b) {
    own += shared.sum(b);
    own_tokens += shared.tokens[b];
  }
  const Weight through = through_lane(own);
  const unsigned tokens_through = through_lane(own_tokens);
  if (threadIdx.x % kWarp == kWarp - 1) {
    shared.warp[warp] = through;
    shared.warp_tokens[warp] = tokens_through;
  }
  __syncthreads();
  Weight before = through - own, total = 0;
  unsigned tokens = tokens_through - own_tokens;
  for (int w = 0; w < kWarps; ++w) {
    if (w < warp) before += shared.warp[w], tokens += shared.warp_tokens[w];
    total += shared.warp[w];
  }
  const Weight need = need_of(total);
  if (before < need && need <= before + own) {  // true of one thread
    int bin = first;
    for (; before + shared.sum(bin) < need; ++bin) {
      before += shared.sum(bin);
      tokens += shared.tokens[bin];
    }
    tokens += shared.tokens[bin];
    shared.found = {bin, before, shared.sum(bin), total, shared.tokens[bin], tokens};
  }
  __syncthreads();
  return shared.found;
}

/// The tokens of a row of logits in device memory.
template <class T>
struct Row {
  const T* logits;
  std::int64_t vocabulary, suppressed;
  float scale, largest;

  /// Calls body(v, logit as it lies there) for this thread's share of the tokens.
  template <class Body>
  __device__ void each_logit(const Body& body) const {
    constexpr std::int64_t kStride = std::int64_t{kThreads} * kVector<T>;
    for (std::int64_t first = 0; first < vocabulary; first += kLoads * kStride) {
      const std::int64_t mine = first + threadIdx.x * std::int64_t{kVector<T>};
      float value[kLoads][kVector<T>];
#pragma unroll
      for (int n = 0; n < kLoads; ++n) {
        const std::int64_t v = mine + n * kStride;
        if (v < vocabulary) load(logits + v, vocabulary - v, value[n]);
      }
#pragma unroll
      for (int n = 0; n < kLoads; ++n) {
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i) {
          const std::int64_t v = mine + n * kStride + i;
          if (v < vocabulary) body(v, value[n][i]);
        }
      }
    }
  }
  /// Calls body(distance, preference) for this thread's share of the tokens.
  template <class Body>
  __device__ void each(const Body& body) const {
    each_logit([&](std::int64_t v, float raw) {
      const float logit = v == suppressed ? -INFINITY : raw;
      body(sampling::distance(largest, logit, scale), sampling::preference(logit, v));
    });
  }
  __device__ Weight kept_weight(const Cut& kept, std::int64_t v, float raw) const {
    const float logit = v == suppressed ? -INFINITY : raw;
    const std::uint32_t d = sampling::distance(largest, logit, scale);
    return kept.keeps(d, sampling::preference(logit, v)) ? sampling::weight(d) : 0;
  }
};

/// The tokens in shared memory.
struct List {
  const std::uint64_t* preference;
  unsigned count;
  float scale, largest;

  template <class Body>
  __device__ void each(const Body& body) const {
    for (unsigned i = threadIdx.x; i < count; i += kThreads) {
      const float logit = sampling::logit_of(preference[i]);
      body(sampling::distance(largest, logit, scale), preference[i]);
    }
  }
};

template <class T>
__device__ Best most_preferred(const Row<T>& row, Shared& shared) {
  Best best{0, 0, 0};
  row.each_logit([&](std::int64_t v, float raw) {
    if (!(raw < INFINITY)) best.bad = 1;  // the suppressed token is looked at too
    if (v == row.suppressed || !(raw > -INFINITY)) return;
    const std::uint64_t preference = sampling::preference(raw, v);
    if (preference > best.preference) best.preference = preference;
  });
  return block_reduce<kThreads>(best, MergeBest{}, shared.reduce);
}

/// The smallest set of most preferred tokens within `base` that reaches need(total), total being
/// that of all of `base`: of their number, or of their weights.
template <class Tokens, class Need>
__device__ Cut select(const Tokens& tokens, const Cut& base, bool by_weight, const Need& need_of,
                      Shared& shared) {
  Cut cut;
  Weight need = 0;
  for (int stage = 0; stage < Cut::kStages; ++stage) {
    clear(shared);
    tokens.each([&](std::uint32_t distance, std::uint64_t preference) {
      if (!base.keeps(distance, preference) || !cut.open(stage, distance, preference)) return;
      shared.add(Cut::bin(stage, distance, preference), by_weight ? sampling::weight(distance) : 1);
    });
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
  const std::int64_t stretch = sampling::stretch(row.vocabulary);
  clear(shared);
  for (std::int64_t s = threadIdx.x / kWarp; s * stretch < row.vocabulary; s += kWarps) {
    const std::int64_t end = std::min((s + 1) * stretch, row.vocabulary);
    Weight sum = 0;
    const std::int64_t first = s * stretch + threadIdx.x % kWarp * kVector<T>;
    for (std::int64_t v = first; v < end; v += kWarp * kVector<T>) {
      float raw[kVector<T>];
      load(row.logits + v, end - v, raw);
#pragma unroll
      for (int i = 0; i < kVector<T>; ++i) {
        if (v + i < end) sum += row.kept_weight(kept, v + i, raw[i]);
      }
    }
    sum = warp_reduce(sum, Sum{});
    if (threadIdx.x % kWarp == 0) shared.set(static_cast<int>(s), sum);
  }
  const Found within =
      find(shared, [&](Weight total) { return sampling::scaled(total, word) + 1; });
  const Weight need = sampling::scaled(within.total, word) + 1 - within.before;

  const std::int64_t first = within.bin * stretch, rest = row.vocabulary - first;
  clear(shared);
  for (std::int64_t i = threadIdx.x; i < std::min(stretch, rest); i += kThreads) {
    shared.set(static_cast<int>(i),
               row.kept_weight(kept, first + i, static_cast<float>(row.logits[first + i])));
  }
  return first + find(shared, [&](Weight) { return need; }).bin;
}

/// The same of tokens in any order: by the leading half of their index, then by the other.
__device__ std::int64_t draw(const List& list, const Cut& kept, std::uint32_t word,
                             Shared& shared) {
  std::int64_t leading = 0;
  Weight need = 0;
  for (int stage = 0; stage < 2; ++stage) {
    clear(shared);
    list.each([&](std::uint32_t distance, std::uint64_t preference) {
      const std::int64_t v = sampling::index_of(preference);
      if (!kept.keeps(distance, preference) || (stage == 1 && v / kBins != leading)) return;
      shared.add(static_cast<int>(stage == 0 ? v / kBins : v % kBins), sampling::weight(distance));
    });
    const Found found = find(shared, [&](Weight total) {
      return stage == 0 ? sampling::scaled(total, word) + 1 : need;
    });
    if (stage == 1) return leading * kBins + found.bin;
    leading = found.bin;
    need = sampling::scaled(found.total, word) + 1 - found.before;
  }
  return -1;
}
static_assert(Sample<float>::kMaxVocabulary <= std::int64_t{kBins} * kBins);

/// Cuts the tokens and draws one. `whole` is the sum of the weights that top-p has its share of, or
/// 0 where it is that of what top-k kept.
template <class Tokens>
__device__ std::int64_t cut_and_draw(const Tokens& tokens, std::int64_t top_k, float top_p,
                                     Weight whole, std::uint32_t word, Shared& shared) {
  Cut kept;
  if (top_k > 0) {
    kept = select(
        tokens, kept, false, [&](Weight) { return static_cast<Weight>(top_k); }, shared);
  }
  if (top_p < 1) {
    kept = select(
        tokens, kept, true,
        [&](Weight total) { return sampling::needed_by_top_p(top_p, whole > 0 ? whole : total); },
        shared);
  }
  return draw(tokens, kept, word, shared);
}

/// Draws from a row that has a distribution. `top_k` of 0 keeps all tokens.
template <class T>
__device__ std::int64_t drawn(const Row<T>& row, std::int64_t top_k, float top_p,
                              std::uint32_t word, Shared& shared) {
  if (top_k == 0 && !(top_p < 1)) return draw(row, Cut{}, word, shared);
  const bool by_weight = top_k == 0;
  clear(shared);
  row.each([&](std::uint32_t distance, std::uint64_t preference) {
    shared.add(Cut::bin(0, distance, preference), by_weight ? sampling::weight(distance) : 1);
  });
  const Found found = find(shared, [&](Weight total) {
    return by_weight ? sampling::needed_by_top_p(top_p, total) : static_cast<Weight>(top_k);
  });
  if (found.through > kListed) return cut_and_draw(row, top_k, top_p, 0, word, shared);
  clear(shared);
  row.each([&](std::uint32_t distance, std::uint64_t preference) {
    if (Cut::bin(0, distance, preference) > found.bin) return;
    shared.list[atomicAdd(&shared.listed, 1U)] = preference;
  });
  __syncthreads();
  const List list{shared.list, found.through, row.scale, row.largest};
  return cut_and_draw(list, top_k, top_p, by_weight ? found.total : 0, word, shared);
}

template <class T>
__global__ void sample_kernel(const __grid_constant__ Sample<T> op, float scale) {
  auto& shared = dynamic_shared<Shared>();
  const std::int64_t vocabulary = op.logits.extent[1];
  const std::int64_t top_k = op.top_k < vocabulary ? op.top_k : 0;
  for (std::int64_t n = blockIdx.x; n < op.logits.extent[0]; n += gridDim.x) {
    Row<T> row{op.logits.data + n * vocabulary, vocabulary, op.suppressed_token, scale, 0};
    const Best best = most_preferred(row, shared);
    const bool none = best.bad != 0 || best.preference == 0;
    std::int64_t token = none ? -1 : sampling::index_of(best.preference);
    if (!none && !op.greedy) {  // the same for all threads of the block
      row.largest = sampling::logit_of(best.preference);
      const auto element = static_cast<std::uint64_t>(n);
      const auto words = op.random.words(element / 4, op.random.step.data[0]);
      token = drawn(row, top_k, op.top_p, words[element % 4], shared);
    }
    if (threadIdx.x == 0) op.token.data[n] = static_cast<std::int32_t>(token);
  }
}

}  // namespace

template <class T>
void Sample<T>::run(const Cuda& device) const {
  note_row_width<T>("V", logits.extent[1]);
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
