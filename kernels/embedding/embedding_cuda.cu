#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/rows.cuh"
#include "kernels/common/cuda/sort.h"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/embedding/embedding.h"
#include "kernels/embedding/embedding_scratch.h"

namespace carousel {
namespace {

// Four warps, no shared memory: enough blocks fit an SM to hide the latency of gathered rows.
constexpr unsigned kThreads = 128;

// Rows in flight per thread before the first is added: what covers the latency of a dependent
// chain of additions.
constexpr int kBatch = 8;

// One row of threads per token.
template <class T>
__global__ void embedding_forward_kernel(const __grid_constant__ EmbeddingForward<T> op,
                                         const __grid_constant__ RowFactor factor_of) {
  constexpr int kWide = kVector<T>;
  const std::int64_t tokens = op.y.extent[0], width = op.y.extent[1];
  const std::int64_t vocab = op.weight.extent[0];
  for (std::int64_t n = first_item(); n < tokens; n += item_stride()) {
    const std::int32_t token = op.token.data[n];
    const bool known = known_token(token, vocab);
    const float factor = known ? factor_of(token) : 1.0F;
    const T* const from = op.weight.data + (known ? token * width : 0);
    for (std::int64_t c = threadIdx.x * kWide; c < width; c += blockDim.x * kWide) {
      float values[kWide];
      if (known) {
        load(from + c, width - c, values);
#pragma unroll
        for (int i = 0; i < kWide; ++i) values[i] *= factor;
      } else {
#pragma unroll
        for (int i = 0; i < kWide; ++i) values[i] = unknown_row(token);
      }
      store(op.y.data + n * width + c, width - c, values);
    }
  }
}

/// Scratch bytes of sorting and of the running sum after it.
std::int64_t sort_bytes(const Cuda& device, std::int64_t tokens) {
  return static_cast<std::int64_t>(
      std::max(sort_scratch_bytes(device, tokens), running_sum_scratch_bytes(device, tokens)));
}

/// What is summed, and how rows are cut among threads.
template <class T>
struct Plan {
  EmbeddingSum<T> s;
  std::int64_t columns_each, column_blocks;
};

/// Where a thread works: its tile, its first column and how many are left from there.
struct Place {
  std::int64_t tile, column, columns;
};
template <class T>
__device__ Place place(const Plan<T>& plan, std::int64_t item) {
  const std::int64_t tile = item / plan.column_blocks;
  const std::int64_t column =
      (item - tile * plan.column_blocks) * plan.columns_each + threadIdx.x * kVector<T>;
  return {tile, column, plan.s.width - column};
}

/// First index of a thread of a one-dimensional grid, and the distance to its next one.
__device__ std::int64_t first_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ std::int64_t index_stride() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

// One thread per token: what the sort sorts.
template <class T>
__global__ void embedding_keys_kernel(const __grid_constant__ EmbeddingSum<T> s) {
  for (std::int64_t n = first_index(); n < s.tokens; n += index_stride()) {
    s.unsorted_keys[n] = embedding_key(s.token[n], s.vocab);
    s.unsorted_positions[n] = static_cast<std::int32_t>(n);
  }
}

// One thread per sorted position: 1 where a run begins, the terms of its rank. They take the place
// of the unsorted positions, which nothing needs any more.
template <class T>
__global__ void embedding_begins_kernel(const __grid_constant__ EmbeddingSum<T> s) {
  for (std::int64_t i = first_index(); i < s.tokens; i += index_stride()) {
    s.unsorted_positions[i] = s.begins_run(i) ? 1 : 0;
  }
}

// One thread per sorted position: the first of a run names its row. One more for the count.
template <class T>
__global__ void embedding_rows_kernel(const __grid_constant__ EmbeddingSum<T> s,
                                      const __grid_constant__ View<std::int32_t, 1> row,
                                      const __grid_constant__ View<std::int32_t, 1> row_count) {
  for (std::int64_t i = first_index(); i <= s.tokens; i += index_stride()) {
    if (i == s.tokens) {
      row_count.data[0] = s.tokens == 0 ? 0 : s.rank[s.tokens - 1];
    } else if (s.begins_run(i)) {
      row.data[s.rank[i] - 1] = static_cast<std::int32_t>(s.keys[i]);
    }
  }
}

/// The first of the sorted keys[0], keys[stride], … keys[(count − 1)·stride] that is `key` or more.
__device__ std::int64_t lower_bound(const std::uint32_t* keys, std::int64_t stride,
                                    std::int64_t count, std::uint32_t key) {
  std::int64_t low = 0;
  while (low < count) {
    const std::int64_t middle = (low + count) / 2;
    if (keys[middle * stride] < key) {
      low = middle + 1;
    } else {
      count = middle;
    }
  }
  return low;
}

// One warp per 32 rows of d_weight: each lane looks for one row's token, so that 32 searches share
// their latency, and then the warp clears the rows that were not hit.
template <class T>
__global__ void embedding_zero_kernel(const __grid_constant__ EmbeddingSum<T> s) {
  constexpr int kWide = kVector<float>;
  const unsigned lane = threadIdx.x % 32;
  for (std::int64_t first = first_index() - lane; first < s.vocab; first += index_stride()) {
    const auto key = static_cast<std::uint32_t>(first + lane);
    const std::int64_t found = lower_bound(s.keys, 1, s.tokens, key);
    const bool hit = found < s.tokens && s.keys[found] == key;
    const unsigned missed = __ballot_sync(0xFFFFFFFFU, first + lane < s.vocab && !hit);
    for (unsigned row = 0; row < 32; ++row) {
      if ((missed >> row & 1U) == 0) continue;
      Accumulator<T>* const to = s.to + (first + row) * s.width;
      const float zeros[kWide]{};
      for (std::int64_t c = lane * kWide; c < s.width; c += 32 * kWide) {
        store(to + c, s.width - c, zeros);
      }
    }
  }
}

/// The sum of a run of equal keys over this thread's columns.
template <int N>
struct RunSum {
  float value[N]{};
  __device__ void add(const float (&row)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) value[i] += row[i];
  }
  __device__ void add(const float (&row)[N], float coefficient) {
#pragma unroll
    for (int i = 0; i < N; ++i) value[i] = fmaf(coefficient, row[i], value[i]);
  }
  __device__ void write(float* to, std::int64_t columns, float factor = 1,
                        bool accumulate = false) const {
    float result[N];
    if (accumulate) load(to, columns, result);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      result[i] = accumulate ? fmaf(value[i], factor, result[i]) : value[i] * factor;
    }
    store(to, columns, result);
  }
};

// One row of threads per tile and block of columns. Runs within the tile are complete and go to
// their row; the one that enters from the left and the one that goes on to the right go to scratch.
template <class T, bool kWeighted>
__global__ void embedding_tile_kernel(const __grid_constant__ Plan<T> plan) {
  constexpr int kWide = kVector<T>;
  const EmbeddingSum<T>& s = plan.s;
  const std::int64_t width = s.width;
  for (std::int64_t item = first_item(); item < s.tiles * plan.column_blocks;
       item += item_stride()) {
    const auto [tile, column, columns] = place(plan, item);
    if (columns <= 0) continue;

    const std::int64_t begin = tile * s.tile;
    const std::int64_t end = begin + s.tile < s.tokens ? begin + s.tile : s.tokens;
    std::uint32_t key = s.keys[begin];
    bool enters = begin > 0 && s.keys[begin - 1] == key;
    RunSum<kWide> sum;
    const auto finish_run = [&](std::int64_t last, bool goes_on) {
      if (enters) {
        sum.write(s.head + tile * width + column, columns);
      } else if (goes_on) {
        sum.write(s.tail + tile * width + column, columns);
      } else if (key != s.outside) {
        sum.write(s.row_of(last, key) + column, columns, s.factor(key), s.accumulate);
      }
    };
    for (std::int64_t i = begin; i < end; i += kBatch) {
      float row[kBatch][kWide];
      std::uint32_t row_key[kBatch];
      [[maybe_unused]] float coefficient[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        if (i + j >= end) continue;
        row_key[j] = s.keys[i + j];
        const std::int32_t position = s.positions[i + j];
        if constexpr (kWeighted) {
          coefficient[j] = s.coefficient[position];
          load(s.gradient_of(position) + column, columns, row[j]);
        } else {
          load(s.d_y + position * width + column, columns, row[j]);
        }
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        if (i + j >= end) continue;
        if (row_key[j] != key) {
          finish_run(i + j - 1, false);
          sum = {};
          enters = false;
          key = row_key[j];
        }
        if constexpr (kWeighted) {
          sum.add(row[j], coefficient[j]);
        } else {
          sum.add(row[j]);
        }
      }
    }
    finish_run(end - 1, end < s.tokens && s.keys[end] == key);
  }
}

// One row of threads per tile and block of columns, idle unless a run begins in the tile and goes
// on: its pieces are added in order.
template <class T>
__global__ void embedding_join_kernel(const __grid_constant__ Plan<T> plan) {
  constexpr int kWide = kVector<T>;
  const EmbeddingSum<T>& s = plan.s;
  const std::int64_t width = s.width;
  for (std::int64_t item = first_item(); item < (s.tiles - 1) * plan.column_blocks;
       item += item_stride()) {
    const auto [tile, column, columns] = place(plan, item);
    const std::int64_t begin = tile * s.tile, end = begin + s.tile;
    const std::uint32_t key = s.keys[end];
    if (columns <= 0 || key == s.outside || s.keys[end - 1] != key) continue;
    if (begin > 0 && s.keys[begin - 1] == key) continue;  // it began further left

    RunSum<kWide> sum;
    load(s.tail + tile * width + column, columns, sum.value);
    const std::int64_t last = lower_bound(s.keys, s.tile, s.tiles, key + 1) - 1;
    for (std::int64_t piece = tile + 1; piece <= last; piece += kBatch) {
      float row[kBatch][kWide];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        if (piece + j <= last) load(s.head + (piece + j) * width + column, columns, row[j]);
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        if (piece + j <= last) sum.add(row[j]);
      }
    }
    sum.write(s.row_of(end, key) + column, columns, s.factor(key), s.accumulate);
  }
}

template <class Op>
std::size_t sum_scratch_bytes(const Cuda& device, const Op& op) {
  ScratchCutter cut;
  EmbeddingSum(cut, op);
  cut.take<std::byte>(sort_bytes(device, op.token.extent[0]));
  return cut.bytes();
}

template <class T>
void sort_by_token(const Cuda& device, const EmbeddingSum<T>& s, std::byte* scratch) {
  if (s.tokens == 0) return;
  launch(device, {.blocks = blocks_for(s.tokens, kThreads), .threads = kThreads},
         embedding_keys_kernel<T>, s);
  sort_pairs(device, {.keys_in = s.unsorted_keys,
                      .values_in = s.unsorted_positions,
                      .keys_out = s.keys,
                      .values_out = s.positions,
                      .count = s.tokens,
                      .bits = s.key_bits(),
                      .scratch = scratch});
}

template <class T>
void sum_runs(const Cuda& device, const EmbeddingSum<T>& s) {
  if (s.tokens == 0) return;
  const RowGrid rows(s.width, kVector<T>, kThreads);
  const Plan<T> plan{s, rows.columns_each, rows.column_blocks};
  const Grid grid = rows.launch_for(s.tiles * rows.column_blocks);
  if (s.coefficient == nullptr) {
    launch(device, grid, embedding_tile_kernel<T, false>, plan);
  } else {
    launch(device, grid, embedding_tile_kernel<T, true>, plan);
  }
  launch(device, rows.launch_for((s.tiles - 1) * rows.column_blocks), embedding_join_kernel<T>,
         plan);
}

}  // namespace

template <class T>
void EmbeddingForward<T>::run(const Cuda& device) const {
  if (y.size() == 0) return;
  note_row_width<T>("E", y.extent[1]);
  launch(device, RowGrid(y.extent[1], kVector<T>, kThreads).launch_for(y.extent[0]),
         embedding_forward_kernel<T>, *this, RowFactor(dropout));
}

template <class T>
std::size_t EmbeddingBackward<T>::scratch_bytes(const Cuda& device) const {
  return sum_scratch_bytes(device, *this);
}

template <class T>
void EmbeddingBackward<T>::run(const Cuda& device) const {
  ScratchCutter cut(device, scratch);
  const EmbeddingSum<T> sum(cut, *this);
  std::byte* const sorting = cut.take<std::byte>(sort_bytes(device, sum.tokens));
  cut.expect_enough("embedding: scratch bytes");
  note_row_width<T>("E", sum.width);
  if (sum.width == 0) return;
  sort_by_token(device, sum, sorting);
  if (!sum.accumulate) {
    launch(device, {.blocks = blocks_for(sum.vocab, kThreads), .threads = kThreads},
           embedding_zero_kernel<T>, sum);
  }
  sum_runs(device, sum);
}

template <class T>
std::size_t EmbeddingRowBackward<T>::scratch_bytes(const Cuda& device) const {
  return sum_scratch_bytes(device, *this);
}

template <class T>
void EmbeddingRowBackward<T>::run(const Cuda& device) const {
  ScratchCutter cut(device, scratch);
  const EmbeddingSum<T> sum(cut, *this);
  std::byte* const sorting = cut.take<std::byte>(sort_bytes(device, sum.tokens));
  cut.expect_enough("embedding: scratch bytes");
  note_row_width<T>("E", sum.width);
  sort_by_token(device, sum, sorting);
  launch(device, {.blocks = blocks_for(sum.tokens, kThreads), .threads = kThreads},
         embedding_begins_kernel<T>, sum);
  running_sum(
      device,
      {.in = sum.unsorted_positions, .out = sum.rank, .count = sum.tokens, .scratch = sorting});
  launch(device, {.blocks = blocks_for(sum.tokens + 1, kThreads), .threads = kThreads},
         embedding_rows_kernel<T>, sum, row, row_count);
  if (sum.width > 0) sum_runs(device, sum);
}

template void EmbeddingForward<float>::run(const Cuda&) const;
template void EmbeddingForward<bf16>::run(const Cuda&) const;
template void EmbeddingBackward<float>::run(const Cuda&) const;
template void EmbeddingBackward<bf16>::run(const Cuda&) const;
template void EmbeddingRowBackward<float>::run(const Cuda&) const;
template void EmbeddingRowBackward<bf16>::run(const Cuda&) const;
template std::size_t EmbeddingBackward<float>::scratch_bytes(const Cuda&) const;
template std::size_t EmbeddingBackward<bf16>::scratch_bytes(const Cuda&) const;
template std::size_t EmbeddingRowBackward<float>::scratch_bytes(const Cuda&) const;
template std::size_t EmbeddingRowBackward<bf16>::scratch_bytes(const Cuda&) const;

}  // namespace carousel
