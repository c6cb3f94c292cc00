#include <fmt/format.h>

#include <algorithm>
#include <array>
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
/// does not depend on V beyond its number of digits.
template <class T>
void sort_by_token(const EmbeddingBackward<T>& op, const EmbeddingScratch<T>& scratch) {
  const std::int64_t tokens = op.token.extent[0], vocab = op.d_weight.extent[0];
  const int bits = embedding_key_bits(vocab);
  const int passes = std::max(1, (bits + 10) / 11);
  const int digit_bits = (bits + passes - 1) / passes;
  const std::uint32_t mask = (1U << digit_bits) - 1;

  // Each pass swaps the buffers; the last must end in `keys`.
  auto *keys = scratch.unsorted_keys, *other_keys = scratch.keys;
  auto *positions = scratch.unsorted_positions, *other_positions = scratch.positions;
  if (passes % 2 == 0) std::swap(keys, other_keys), std::swap(positions, other_positions);
  for (std::int64_t n = 0; n < tokens; ++n) {
    keys[n] = embedding_key(op.token(n), vocab);
    positions[n] = static_cast<std::int32_t>(n);
  }

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

/// to[e] (+)= Σ of `count` rows of width `width`, row(i) giving the i-th, in order.
template <class A, class Row>
void sum_rows(A* to, std::int64_t width, bool accumulate, std::int64_t count, const Row& row) {
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
#pragma omp simd
      for (std::int64_t c = 0; c < columns; ++c) {
        sum[static_cast<std::size_t>(c)] += static_cast<A>(from[c]);
      }
    }
    for (std::int64_t c = 0; c < columns; ++c) {
      const A total = sum[static_cast<std::size_t>(c)];
      to[first + c] = accumulate ? to[first + c] + total : total;
    }
  }
}

/// The runs of one tile: complete ones go to d_weight, those that cross an edge to scratch.
template <class T>
void sum_tile(const EmbeddingBackward<T>& op, const EmbeddingScratch<T>& s, std::int64_t k) {
  const auto [tokens, width] = op.d_y.extent;
  const std::uint32_t outside = embedding_outside(op.d_weight.extent[0]);
  const std::int64_t begin = k * s.tile, end = std::min(tokens, begin + s.tile);
  for (std::int64_t i = begin; i < end && s.keys[i] != outside;) {
    const std::uint32_t key = s.keys[i];
    std::int64_t last = i + 1;
    while (last < end && s.keys[last] == key) ++last;

    const bool enters = i == begin && i > 0 && s.keys[i - 1] == key;
    const bool goes_on = last == end && end < tokens && s.keys[end] == key;
    const auto row = [&](std::int64_t j) { return op.d_y.data + s.positions[i + j] * width; };
    if (enters) {
      sum_rows(s.head + k * width, width, false, last - i, row);
    } else if (goes_on) {
      sum_rows(s.tail + k * width, width, false, last - i, row);
    } else {
      sum_rows(op.d_weight.data + key * width, width, op.accumulate_d_weight, last - i, row);
    }
    i = last;
  }
}

/// If a run begins in tile k and goes on: its pieces, in order, to d_weight.
template <class T>
void join_from(const EmbeddingBackward<T>& op, const EmbeddingScratch<T>& s, std::int64_t k) {
  const auto [tokens, width] = op.d_y.extent;
  const std::int64_t begin = k * s.tile, end = begin + s.tile;
  if (end >= tokens) return;
  const std::uint32_t key = s.keys[end];
  if (key == embedding_outside(op.d_weight.extent[0]) || s.keys[end - 1] != key) return;
  if (begin > 0 && s.keys[begin - 1] == key) return;  // it began further left

  std::int64_t pieces = 1;
  while ((k + pieces) * s.tile < tokens && s.keys[(k + pieces) * s.tile] == key) ++pieces;
  sum_rows(op.d_weight.data + key * width, width, op.accumulate_d_weight, pieces,
           [&](std::int64_t i) { return i == 0 ? s.tail + k * width : s.head + (k + i) * width; });
}

/// Writes zeros to the rows of d_weight that no token hit.
template <class T>
void zero_missed(const EmbeddingBackward<T>& op, const EmbeddingScratch<T>& s) {
  const auto [vocab, width] = op.d_weight.extent;
  const std::uint32_t *const keys = s.keys, *const end = keys + op.token.extent[0];
  const std::int64_t chunk = std::max<std::int64_t>(1, kWorthThreads / width);
#pragma omp parallel for schedule(static) if (vocab > chunk)
  for (std::int64_t first = 0; first < vocab; first += chunk) {
    const std::uint32_t* key = std::lower_bound(keys, end, static_cast<std::uint32_t>(first));
    for (std::int64_t v = first; v < std::min(vocab, first + chunk); ++v) {
      if (key == end || *key != v) {
        std::fill_n(op.d_weight.data + v * width, width, Accumulator<T>{0});
      } else {
        key = std::upper_bound(key, end, static_cast<std::uint32_t>(v));
      }
    }
  }
}

}  // namespace

template <class T>
std::size_t scratch_bytes(const Cpu&, const EmbeddingBackward<T>& op) {
  ScratchCutter cut;
  EmbeddingScratch<T>(cut, op);
  return cut.bytes();
}

template <class T>
void EmbeddingForward<T>::check() const {
  expect_extent("embedding: y rows", y.extent[0], token.extent[0]);
  expect_extent("embedding: y columns", y.extent[1], weight.extent[1]);
}

template <class T>
void EmbeddingBackward<T>::check() const {
  const auto [tokens, width] = d_y.extent;
  expect_extent("embedding: d_y rows", tokens, token.extent[0]);
  expect_extent("embedding: d_weight columns", d_weight.extent[1], width);
  if (tokens > std::numeric_limits<std::int32_t>::max()) {
    throw ShapeError(fmt::format("embedding: d_y rows is {}, expected fewer than 2^31", tokens));
  }
}

template <class T>
void run(const Cpu&, const EmbeddingForward<T>& op) {
  const auto [tokens, width] = op.y.extent;
  const std::int64_t vocab = op.weight.extent[0];
#pragma omp parallel for schedule(static) if (tokens * width > kWorthThreads)
  for (std::int64_t n = 0; n < tokens; ++n) {
    const std::int32_t token = op.token(n);
    T* const y = op.y.data + n * width;
    if (known_token(token, vocab)) {
      std::copy_n(op.weight.data + token * width, width, y);
    } else {
      std::fill_n(y, width, static_cast<T>(std::numeric_limits<float>::quiet_NaN()));
    }
  }
}

template <class T>
void run(const Cpu& cpu, const EmbeddingBackward<T>& op) {
  ScratchCutter cut(cpu, op.scratch);
  const EmbeddingScratch<T> scratch(cut, op);
  cut.expect_enough("embedding: scratch bytes");
  const auto [tokens, width] = op.d_y.extent;
  if (width == 0) return;
  sort_by_token(op, scratch);
  if (!op.accumulate_d_weight) zero_missed(op, scratch);
#pragma omp parallel for schedule(static) if (tokens * width > kWorthThreads)
  for (std::int64_t k = 0; k < scratch.tiles; ++k) sum_tile(op, scratch, k);
#pragma omp parallel for schedule(dynamic) if (tokens * width > kWorthThreads)
  for (std::int64_t k = 0; k < scratch.tiles; ++k) join_from(op, scratch, k);
}

template struct EmbeddingForward<float>;
template struct EmbeddingForward<bf16>;
template struct EmbeddingForward<double>;
template struct EmbeddingBackward<float>;
template struct EmbeddingBackward<bf16>;
template struct EmbeddingBackward<double>;
template std::size_t scratch_bytes(const Cpu&, const EmbeddingBackward<float>&);
template std::size_t scratch_bytes(const Cpu&, const EmbeddingBackward<bf16>&);
template std::size_t scratch_bytes(const Cpu&, const EmbeddingBackward<double>&);
template void run(const Cpu&, const EmbeddingForward<float>&);
template void run(const Cpu&, const EmbeddingForward<bf16>&);
template void run(const Cpu&, const EmbeddingForward<double>&);
template void run(const Cpu&, const EmbeddingBackward<float>&);
template void run(const Cpu&, const EmbeddingBackward<bf16>&);
template void run(const Cpu&, const EmbeddingBackward<double>&);

}  // namespace carousel
