#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/common/check.h"
#include "kernels/embedding/embedding.h"
#include "kernels/embedding/embedding_scratch.h"

namespace carousel {

namespace {

// Below this many elements, waking the threads costs more than the work.
constexpr std::int64_t kWorthThreads = 32'768;

// Columns summed at a time: their sums stay in the first-level cache while rows stream past.
constexpr std::int64_t kColumns = 512;

// Rows fetched ahead of their sum: the hardware foresees a row's next line, but not the next row.
constexpr std::int64_t kAhead = 4;

/// Least significant digit first; every pass is a stable counting sort, so the whole is. The cost
/// does not depend on V beyond its number of digits. Tokens outside [0, V), which may be most, take
/// no part: their keys fill up the end, and no position of theirs is read.
template <class T>
void sort_by_token(const EmbeddingSum<T>& s) {
  const int bits = s.key_bits();
  const int passes = std::max(1, (bits + 10) / 11);
  const int digit_bits = (bits + passes - 1) / passes;
  const std::uint32_t mask = (1U << digit_bits) - 1;

  // Each pass swaps the buffers; the last must end in `keys`.
  auto *keys = s.unsorted_keys, *other_keys = s.keys;
  auto *positions = s.unsorted_positions, *other_positions = s.positions;
  if (passes % 2 == 0) std::swap(keys, other_keys), std::swap(positions, other_positions);
  std::int64_t tokens = 0;
  for (std::int64_t n = 0; n < s.tokens; ++n) {
    if (!known_token(s.token[n], s.vocab)) continue;
    keys[tokens] = static_cast<std::uint32_t>(s.token[n]);
    positions[tokens++] = static_cast<std::int32_t>(n);
  }
  std::fill(s.keys + tokens, s.keys + s.tokens, s.outside);

  std::array<std::int32_t, 2048> start{};
  for (int pass = 0; pass < passes; ++pass) {
    const int shift = pass * digit_bits;
    start.fill(0);
    for (std::int64_t n = 0; n < tokens; ++n) ++start[(keys[n] >> shift) & mask];
    std::int32_t sum = 0;
    for (std::int32_t& count : start) sum += std::exchange(count, sum);
    for (std::int64_t n = 0; n < tokens; ++n) {
      const std::int32_t to = start[(keys[n] >> shift) & mask]++;
      other_keys[to] = keys[n];
      other_positions[to] = positions[n];
    }
    std::swap(keys, other_keys);
    std::swap(positions, other_positions);
  }
}

/// Where a sum of rows of `width` is written, times a factor, and whether it is added.
template <class A>
struct SumTarget {
  A* to;
  std::int64_t width;
  A factor = 1;
  bool accumulate = false;
};

/// Coefficients that are all 1.
struct Ones {
  static constexpr bool kAreOne = true;
};
/// Those of sorted positions.
template <class A>
struct Coefficients {
  static constexpr bool kAreOne = false;
  const A* of;
  const std::int32_t* position;
  A operator()(std::int64_t i) const { return of[position[i]]; }
};

/// Sums `count` rows times their coefficients, row(i) giving the i-th, in order.
template <class A, class Row, class Coefficient = Ones>
void sum_rows(const SumTarget<A>& target, std::int64_t count, const Row& row,
              const Coefficient& coefficient = {}) {
  const auto [to, width, factor, accumulate] = target;
  std::array<A, kColumns> sum;
  for (std::int64_t first = 0; first < width; first += kColumns) {
    const std::int64_t columns = std::min(kColumns, width - first);
    std::fill_n(sum.begin(), columns, A{0});
    for (std::int64_t i = 0; i < count; ++i) {
      const auto* from = row(i) + first;
      if (i + kAhead < count) {
        const auto* const next = reinterpret_cast<const std::byte*>(row(i + kAhead) + first);
        for (std::size_t b = 0; b < static_cast<std::size_t>(columns) * sizeof(*from); b += 64) {
          __builtin_prefetch(next + b);
        }
      }
      if constexpr (Coefficient::kAreOne) {
#pragma omp simd
        for (std::int64_t c = 0; c < columns; ++c) {
          sum[static_cast<std::size_t>(c)] += static_cast<A>(from[c]);
        }
      } else {
        const A times = coefficient(i);
#pragma omp simd
        for (std::int64_t c = 0; c < columns; ++c) {
          A& to_column = sum[static_cast<std::size_t>(c)];
          to_column = std::fma(times, static_cast<A>(from[c]), to_column);
        }
      }
    }
    for (std::int64_t c = 0; c < columns; ++c) {
      const A total = sum[static_cast<std::size_t>(c)];
      to[first + c] = accumulate ? std::fma(total, factor, to[first + c]) : total * factor;
    }
  }
}

/// The runs of one tile: complete ones go to their row, those that cross an edge to scratch.
template <class T>
void sum_tile(const EmbeddingSum<T>& s, std::int64_t k) {
  using A = Accumulator<T>;
  const std::int64_t width = s.width;
  const std::int64_t begin = k * s.tile, end = std::min(s.tokens, begin + s.tile);
  for (std::int64_t i = begin; i < end && s.keys[i] != s.outside;) {
    const std::uint32_t key = s.keys[i];
    std::int64_t last = i + 1;
    while (last < end && s.keys[last] == key) ++last;

    const bool enters = i == begin && i > 0 && s.keys[i - 1] == key;
    const bool goes_on = last == end && end < s.tokens && s.keys[end] == key;
    SumTarget<A> target{s.row_of(i, key), width, s.factor(key), s.accumulate};
    if (enters) {
      target = {s.head + k * width, width};
    } else if (goes_on) {
      target = {s.tail + k * width, width};
    }
    const auto row = [&](std::int64_t j) { return s.gradient_of(s.positions[i + j]); };
    if (s.coefficient == nullptr) {
      sum_rows(target, last - i, row);
    } else {
      sum_rows(target, last - i, row, Coefficients<A>{s.coefficient, s.positions + i});
    }
    i = last;
  }
}

/// If a run begins in tile k and goes on: its pieces, in order, to its row.
template <class T>
void join_from(const EmbeddingSum<T>& s, std::int64_t k) {
  const std::int64_t width = s.width;
  const std::int64_t begin = k * s.tile, end = begin + s.tile;
  if (end >= s.tokens) return;
  const std::uint32_t key = s.keys[end];
  if (key == s.outside || s.keys[end - 1] != key) return;
  if (begin > 0 && s.keys[begin - 1] == key) return;  // it began further left

  std::int64_t pieces = 1;
  while ((k + pieces) * s.tile < s.tokens && s.keys[(k + pieces) * s.tile] == key) ++pieces;
  sum_rows<Accumulator<T>>(
      {s.row_of(end, key), width, s.factor(key), s.accumulate}, pieces,
      [&](std::int64_t i) { return i == 0 ? s.tail + k * width : s.head + (k + i) * width; });
}

/// All sums, each to its row; the tokens are sorted. Threads take turns, because the last tiles may
/// have no token.
template <class T>
void sum_runs(const EmbeddingSum<T>& s) {
#pragma omp parallel for schedule(static, 1) if (s.tokens * s.width > kWorthThreads)
  for (std::int64_t k = 0; k < s.tiles; ++k) sum_tile(s, k);
#pragma omp parallel for schedule(dynamic) if (s.tokens * s.width > kWorthThreads)
  for (std::int64_t k = 0; k < s.tiles; ++k) join_from(s, k);
}

/// Writes zeros to the rows of the dense gradient that no token hit.
template <class T>
void zero_missed(const EmbeddingSum<T>& s) {
  const std::int64_t vocab = s.vocab, width = s.width;
  const std::uint32_t *const keys = s.keys, *const end = keys + s.tokens;
  const std::int64_t chunk = std::max<std::int64_t>(1, kWorthThreads / width);
#pragma omp parallel for schedule(static) if (vocab > chunk)
  for (std::int64_t first = 0; first < vocab; first += chunk) {
    const std::uint32_t* key = std::lower_bound(keys, end, static_cast<std::uint32_t>(first));
    for (std::int64_t v = first; v < std::min(vocab, first + chunk); ++v) {
      if (key == end || *key != v) {
        std::fill_n(s.to + v * width, width, Accumulator<T>{0});
      } else {
        key = std::upper_bound(key, end, static_cast<std::uint32_t>(v));
      }
    }
  }
}

template <class Op>
void check_backward(const Op& op) {
  const std::int64_t rows = op.d_y.extent[0], tokens = op.token.extent[0];
  if (op.coefficient.present()) {
    expect_extent("embedding: coefficient elements", op.coefficient.extent[0], tokens);
    if (rows == 0 ? tokens != 0 : tokens % rows != 0) {
      throw ShapeError(fmt::format("embedding: tokens is {}, expected a multiple of d_y rows, {}",
                                   tokens, rows));
    }
  } else {
    expect_extent("embedding: d_y rows", rows, tokens);
  }
  if (tokens > std::numeric_limits<std::int32_t>::max()) {
    throw ShapeError(fmt::format("embedding: tokens is {}, expected fewer than 2^31", tokens));
  }
}

}  // namespace

void RowDropout::check() const {
  if (!(drop_probability >= 0.0F && drop_probability <= 1.0F)) {
    throw ConfigError(
        fmt::format("embedding: drop_probability is {}, expected 0 to 1", drop_probability));
  }
  expect_present("embedding: source.step", drop_probability == 0.0F || source.step.present());
}

template <class T>
void EmbeddingForward<T>::check() const {
  expect_extent("embedding: y rows", y.extent[0], token.extent[0]);
  expect_extent("embedding: y columns", y.extent[1], weight.extent[1]);
  dropout.check();
}

template <class T>
void EmbeddingForward<T>::run(const Cpu&) const {
  const auto [tokens, width] = y.extent;
  const std::int64_t vocab = weight.extent[0];
  const RowFactor factor_of(dropout);
#pragma omp parallel for schedule(static) if (tokens * width > kWorthThreads)
  for (std::int64_t n = 0; n < tokens; ++n) {
    T* const to = y.data + n * width;
    if (known_token(token(n), vocab)) {
      const T* const from = weight.data + token(n) * width;
      const auto factor = static_cast<Accumulator<T>>(factor_of(token(n)));
      if (factor == 1) {
        std::copy_n(from, width, to);
        continue;
      }
#pragma GCC ivdep
      for (std::int64_t e = 0; e < width; ++e) {
        to[e] = static_cast<T>(factor * static_cast<Accumulator<T>>(from[e]));
      }
    } else {
      std::fill_n(to, width, static_cast<T>(unknown_row(token(n))));
    }
  }
}

template <class T>
void EmbeddingBackward<T>::check() const {
  check_backward(*this);
  expect_extent("embedding: d_weight columns", d_weight.view.extent[1], d_y.extent[1]);
  dropout.check();
}

template <class T>
std::size_t EmbeddingBackward<T>::scratch_bytes(const Cpu&) const {
  ScratchCutter cut;
  EmbeddingSum<T>(cut, *this);
  return cut.bytes();
}

template <class T>
void EmbeddingBackward<T>::run(const Cpu& cpu) const {
  ScratchCutter cut(cpu, scratch);
  const EmbeddingSum<T> sum(cut, *this);
  cut.expect_enough("embedding: scratch bytes");
  if (sum.width == 0) return;
  sort_by_token(sum);
  if (!sum.accumulate) zero_missed(sum);
  sum_runs(sum);
}

template <class T>
void EmbeddingRowBackward<T>::check() const {
  check_backward(*this);
  expect_extent("embedding: row elements", row.extent[0], token.extent[0]);
  expect_extent("embedding: row_count elements", row_count.extent[0], 1);
  expect_extent("embedding: d_row rows", d_row.extent[0], token.extent[0]);
  expect_extent("embedding: d_row columns", d_row.extent[1], d_y.extent[1]);
  dropout.check();
  if (vocab > std::int64_t{1} << 31) {
    throw ShapeError(fmt::format("embedding: vocab is {}, expected at most 2^31", vocab));
  }
}

template <class T>
std::size_t EmbeddingRowBackward<T>::scratch_bytes(const Cpu&) const {
  ScratchCutter cut;
  EmbeddingSum<T>(cut, *this);
  return cut.bytes();
}

template <class T>
void EmbeddingRowBackward<T>::run(const Cpu& cpu) const {
  ScratchCutter cut(cpu, scratch);
  const EmbeddingSum<T> sum(cut, *this);
  cut.expect_enough("embedding: scratch bytes");
  sort_by_token(sum);
  std::int32_t count = 0;
  for (std::int64_t i = 0; i < sum.tokens; ++i) {
    if (sum.begins_run(i)) row(count++) = static_cast<std::int32_t>(sum.keys[i]);
    sum.rank[i] = count;
  }
  row_count(0) = count;
  sum_runs(sum);
}

template struct EmbeddingForward<float>;
template struct EmbeddingForward<bf16>;
template struct EmbeddingForward<double>;
template struct EmbeddingBackward<float>;
template struct EmbeddingBackward<bf16>;
template struct EmbeddingBackward<double>;
template struct EmbeddingRowBackward<float>;
template struct EmbeddingRowBackward<bf16>;
template struct EmbeddingRowBackward<double>;

}  // namespace carousel
