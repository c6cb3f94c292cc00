#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "kernels/common/check.h"
#include "kernels/matmul/matmul.h"
#include "kernels/sample/selection.h"
#include "kernels/top_k/top_k.h"

namespace carousel {
namespace {

constexpr std::int64_t kBlock = 32;  // scores that are compared at once, as vectors
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The largest keys that were added, at most `most` of them.
class Largest {
 public:
  explicit Largest(std::int64_t most) : most_(most) {}

  /// What is not above this need not be added.
  float threshold() const { return threshold_; }
  bool full() const { return count_ == most_; }
  void add(std::uint64_t key) {
    if (full()) {
      if (key <= keys_[0]) return;
      std::pop_heap(keys_, keys_ + count_--, std::greater<>{});
    }
    keys_[count_++] = key;
    std::push_heap(keys_, keys_ + count_, std::greater<>{});
    if (full()) threshold_ = sampling::logit_of(keys_[0]);
  }
  void write(std::int32_t* index, float* score) {
    std::sort_heap(keys_, keys_ + count_, std::greater<>{});
    for (std::int64_t k = 0; k < most_; ++k) {
      index[k] = k < count_ ? static_cast<std::int32_t>(sampling::index_of(keys_[k])) : -1;
      score[k] = k < count_ ? sampling::logit_of(keys_[k]) : -kInfinity;
    }
  }

 private:
  std::int64_t most_, count_ = 0;
  float threshold_ = -kInfinity;
  std::uint64_t keys_[TopK<float>::kMost];  // a heap, the smallest in front
};

template <class T>
void choose(const TopK<T>& op, std::int64_t n) {
  const std::int64_t rows = op.all.extent[1], kept = op.index.extent[1];
  const float* const scores = op.all.data + n * rows;
  const std::int32_t* const excluded = op.excluded.data + n * op.excluded.extent[1];
  const auto is_excluded = [&](std::int64_t v) {
    return std::find(excluded, excluded + op.excluded.extent[1], v) !=
           excluded + op.excluded.extent[1];
  };
  Largest largest(kept);
  bool bad = false;
  for (std::int64_t first = 0; first < rows; first += kBlock) {
    const std::int64_t count = std::min(kBlock, rows - first);
    const float threshold = largest.threshold();
    bool any = !largest.full();
    for (std::int64_t i = 0; i < count; ++i) any |= !(scores[first + i] <= threshold);  // or NaN
    if (!any) continue;
    for (std::int64_t v = first; v < first + count; ++v) {
      bad |= scores[v] != scores[v];
      if (largest.full() && scores[v] <= largest.threshold()) continue;
      if (!is_excluded(v)) largest.add(sampling::preference(scores[v], v));
    }
  }
  std::int32_t* const index = op.index.data + n * kept;
  float* const score = op.score.data + n * kept;
  largest.write(index, score);
  if (!bad) return;
  std::fill_n(index, kept, -1);
  std::fill_n(score, kept, kNaN);
}

}  // namespace

template <class T>
void TopK<T>::check() const {
  const auto [queries, rows] = all.extent;
  const std::int64_t kept = index.extent[1];
  if (!scored()) {
    expect_extent("top_k: columns of table", table.extent[1], query.extent[1]);
    expect_extent("top_k: rows of query", query.extent[0], queries);
    expect_extent("top_k: rows of table", table.extent[0], rows);
  }
  if (rows > kMaxRows) {
    throw ShapeError(fmt::format("top_k: all has {} columns, expected at most {}", rows, kMaxRows));
  }
  if (excluded.present()) expect_extent("top_k: rows of excluded", excluded.extent[0], queries);
  expect_extent("top_k: rows of index", index.extent[0], queries);
  expect_extent("top_k: rows of score", score.extent[0], queries);
  expect_extent("top_k: columns of score", score.extent[1], kept);
  if (kept < 1 || kept > kMost) {
    throw ShapeError(fmt::format("top_k: index has {} columns, expected 1 to {}", kept, kMost));
  }
}

template <class T>
void TopK<T>::run(const Cpu& device) const {
  if (!scored()) {
    Matmul<T, float>{.a = query, .b = table, .c = all, .transpose_b = true}.run(device);
  }
  const std::int64_t queries = all.extent[0];
#pragma omp parallel for schedule(static) if (queries > 1 && all.size() > 32'768)
  for (std::int64_t n = 0; n < queries; ++n) choose(*this, n);
}

template struct TopK<float>;
template struct TopK<bf16>;

}  // namespace carousel
