#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/check.h"
#include "kernels/sample/sample.h"
#include "kernels/sample/selection.h"

namespace carousel {
namespace {

using sampling::Cut;
using sampling::Found;
using sampling::kBins;
using sampling::Weight;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// A stretch of the row, worked on as arrays so that the arithmetic becomes vector code.
struct Chunk {
  static constexpr std::int64_t kTokens = 512;
  std::int64_t first = 0, count = 0;
  alignas(64) float logit[kTokens];
  alignas(64) std::uint32_t distance[kTokens];
  alignas(64) Weight weight[kTokens];

  std::uint64_t preference(std::int64_t i) const {
    return sampling::preference(logit[i], first + i);
  }
};

struct Bins {
  Weight sum[kBins] = {};
  unsigned tokens[kBins] = {};

  void add(int bin, Weight weight) {
    sum[bin] += weight;
    ++tokens[bin];
  }
  Weight total() const {
    Weight total = 0;
    for (const Weight s : sum) total += s;
    return total;
  }
  /// The bin in which the running sum reaches `need`, which is at least 1 and at most total().
  Found find(Weight need) const {
    Found found;
    for (; found.before + sum[found.bin] < need; ++found.bin) found.before += sum[found.bin];
    found.inside = sum[found.bin];
    found.tokens = tokens[found.bin];
    return found;
  }
};

template <class T>
class Row {
 public:
  Row(const Sample<T>& op, std::int64_t row)
      : logits_(op.logits.data + row * op.logits.extent[1]),
        vocabulary_(op.logits.extent[1]),
        suppressed_(op.suppressed_token),
        scale_(sampling::distance_scale(op.temperature)) {}

  /// The token of largest logit, or −1 if the row has no distribution.
  std::int32_t most_preferred() {
    bool bad = false;
    std::uint64_t best = 0;
    each_chunk([&](Chunk& chunk) {
      float largest = -kInfinity;
      for (std::int64_t i = 0; i < chunk.count; ++i) {
        // The suppressed token is −inf already, and is looked at where it lies.
        bad |= !(static_cast<float>(logits_[chunk.first + i]) < kInfinity);
        largest = chunk.logit[i] > largest ? chunk.logit[i] : largest;
      }
      if (largest == -kInfinity || bad || largest < largest_) return;
      for (std::int64_t i = 0; i < chunk.count; ++i) best = std::max(best, chunk.preference(i));
      largest_ = std::max(largest_, largest);
    });
    return bad || best == 0 ? -1 : static_cast<std::int32_t>(sampling::index_of(best));
  }

  /// The smallest set of most preferred tokens within `base` that reaches need(total) when
  /// value(chunk, i) is summed, total being its sum over all of `base`.
  template <class Need, class Value>
  Cut select(const Cut& base, const Need& need_of, const Value& value) {
    Cut cut;
    Weight need = 0;
    for (int stage = 0; stage < Cut::kStages; ++stage) {
      Bins bins;
      each_distance([&](const Chunk& chunk) {
        for (std::int64_t i = 0; i < chunk.count; ++i) {
          const std::uint64_t preference = chunk.preference(i);
          const std::uint32_t distance = chunk.distance[i];
          if (!base.keeps(distance, preference) || !cut.open(stage, distance, preference)) continue;
          bins.add(Cut::bin(stage, distance, preference), value(chunk, i));
        }
      });
      if (stage == 0) need = need_of(bins.total());
      const Found found = bins.find(need);
      cut.narrow(stage, found.bin);
      need -= found.before;
      if (need == found.inside || found.tokens == 1) break;  // the whole bin is kept
    }
    return cut;
  }

  /// The first token at which the running sum of kept weights exceeds its total times word / 2³².
  std::int32_t draw(const Cut& kept, std::uint32_t word) {
    Bins bins;
    const std::int64_t stretch = sampling::stretch(vocabulary_);
    each_kept_weight(kept, 0, vocabulary_, [&](std::int64_t token, Weight weight) {
      bins.sum[token / stretch] += weight;
    });
    Weight need = sampling::scaled(bins.total(), word) + 1;
    const Found found = bins.find(need);
    need -= found.before;
    std::int64_t chosen = -1;
    const std::int64_t first = found.bin * stretch;
    each_kept_weight(kept, first, std::min(stretch, vocabulary_ - first),
                     [&](std::int64_t token, Weight weight) {
                       if (chosen < 0 && weight >= need) chosen = token;
                       need -= std::min(weight, need);
                     });
    return static_cast<std::int32_t>(chosen);
  }

 private:
  /// Calls body(chunk) over [first, first + count), with the logits filled in.
  template <class Body>
  void each_chunk(const Body& body, std::int64_t first, std::int64_t count) {
    Chunk chunk;
    for (std::int64_t end = first + count; first < end; first += Chunk::kTokens) {
      chunk.first = first;
      chunk.count = std::min(Chunk::kTokens, end - first);
      for (std::int64_t i = 0; i < chunk.count; ++i) {
        chunk.logit[i] = static_cast<float>(logits_[first + i]);
      }
      if (suppressed_ >= first && suppressed_ < first + chunk.count) {
        chunk.logit[suppressed_ - first] = -kInfinity;
      }
      body(chunk);
    }
  }
  template <class Body>
  void each_chunk(const Body& body) {
    each_chunk(body, 0, vocabulary_);
  }

  /// The same, with distances and weights.
  template <class Body>
  void each_distance(const Body& body, std::int64_t first, std::int64_t count) {
    each_chunk(
        [&](Chunk& chunk) {
          for (std::int64_t i = 0; i < chunk.count; ++i) {
            chunk.distance[i] = sampling::distance(largest_, chunk.logit[i], scale_);
          }
          for (std::int64_t i = 0; i < chunk.count; ++i) {
            chunk.weight[i] = sampling::weight(chunk.distance[i]);
          }
          body(chunk);
        },
        first, count);
  }
  template <class Body>
  void each_distance(const Body& body) {
    each_distance(body, 0, vocabulary_);
  }

  template <class Body>
  void each_kept_weight(const Cut& kept, std::int64_t first, std::int64_t count, const Body& body) {
    each_distance(
        [&](const Chunk& chunk) {
          for (std::int64_t i = 0; i < chunk.count; ++i) {
            if (kept.keeps(chunk.distance[i], chunk.preference(i))) {
              body(chunk.first + i, chunk.weight[i]);
            }
          }
        },
        first, count);
  }

  const T* logits_;
  std::int64_t vocabulary_;
  std::int64_t suppressed_;
  float scale_;
  float largest_ = -kInfinity;
};

template <class T>
std::int32_t sampled(const Sample<T>& op, std::int64_t n) {
  Row<T> row(op, n);
  const std::int32_t best = row.most_preferred();
  if (op.greedy || best < 0) return best;
  Cut kept;
  if (op.top_k > 0 && op.top_k < op.logits.extent[1]) {
    kept = row.select(
        kept, [&](Weight) { return static_cast<Weight>(op.top_k); },
        [](const Chunk&, std::int64_t) { return Weight{1}; });
  }
  if (op.top_p < 1) {
    kept = row.select(
        kept, [&](Weight total) { return sampling::needed_by_top_p(op.top_p, total); },
        [](const Chunk& chunk, std::int64_t i) { return chunk.weight[i]; });
  }
  const auto element = static_cast<std::uint64_t>(n);
  return row.draw(kept, op.random.words(element / 4, op.random.step(0))[element % 4]);
}

}  // namespace

template <class T>
void Sample<T>::check() const {
  const auto [rows, vocabulary] = logits.extent;
  expect_extent("sample: token elements", token.extent[0], rows);
  if (vocabulary < 1 || vocabulary > kMaxVocabulary) {
    throw ShapeError(fmt::format("sample: logits have {} columns, expected 1 to {}", vocabulary,
                                 kMaxVocabulary));
  }
  if (greedy) return;
  expect_extent("sample: random.step elements", random.step.extent[0], 1);
  if (!(temperature > 0 && std::isfinite(temperature))) {
    throw ConfigError(
        fmt::format("sample: temperature is {}, expected a positive number", temperature));
  }
  if (top_k < 0) {
    throw ConfigError(fmt::format("sample: top_k is {}, expected 0 (all) or more", top_k));
  }
  if (!(top_p > 0 && top_p <= 1)) {
    throw ConfigError(fmt::format("sample: top_p is {}, expected a number in (0, 1]", top_p));
  }
}

template <class T>
void Sample<T>::run(const Cpu&) const {
  const auto [rows, vocabulary] = logits.extent;
#pragma omp parallel for schedule(static) if (rows > 1 && rows * vocabulary > 32'768)
  for (std::int64_t n = 0; n < rows; ++n) token(n) = sampled(*this, n);
}

template struct Sample<float>;
template struct Sample<bf16>;

}  // namespace carousel
