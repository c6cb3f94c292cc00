#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"
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

/// Blocks of `x` threads along a row, 128 bits of T each, and as many rows beside one another as
/// kThreads allows, so that narrow rows do not idle most of a warp.
template <class T>
struct RowGrid {
  unsigned x = 1;
  std::int64_t columns_each = 0;   ///< columns one pass of x threads covers
  std::int64_t column_blocks = 0;  ///< passes to cover the row
  explicit RowGrid(std::int64_t width) {
    while (x < kThreads && x * kVector<T> < width) x *= 2;
    columns_each = std::int64_t{x} * kVector<T>;
    column_blocks = (width + columns_each - 1) / columns_each;
  }
  Grid launch_for(std::int64_t items) const {
    const unsigned y = kThreads / x;
    return {.blocks = blocks_for(items, y), .threads = x, .threads_y = y};
  }
};

/// First work item of this thread's row of the block, and the distance to its next one.
__device__ std::int64_t first_item() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
}
__device__ std::int64_t item_stride() { return static_cast<std::int64_t>(gridDim.x) * blockDim.y; }

// One row of threads per token.
template <class T>
__global__ void embedding_forward_kernel(const __grid_constant__ EmbeddingForward<T> op) {
  constexpr int kWide = kVector<T>;
  const std::int64_t tokens = op.y.extent[0], width = op.y.extent[1];
  const std::int64_t vocab = op.weight.extent[0];
  for (std::int64_t n = first_item(); n < tokens; n += item_stride()) {
    const std::int32_t token = op.token.data[n];
    const bool known = known_token(token, vocab);
    const T* const from = op.weight.data + (known ? token * width : 0);
    for (std::int64_t c = threadIdx.x * kWide; c < width; c += blockDim.x * kWide) {
      float values[kWide];
      if (known) {
        load(from + c, width - c, values);
      } else {
#pragma unroll
        for (int i = 0; i < kWide; ++i) values[i] = NAN;
      }
      store(op.y.data + n * width + c, width - c, values);
    }
  }
}

/// What the backward kernels share; the arrays of `s` lie in device memory.
template <class T>
struct Plan {
  EmbeddingScratch<T> s;
  std::int64_t columns_each, column_blocks;
};

/// Where a thread works: its tile, its first column and how many are left from there.
struct Place {
  std::int64_t tile, column, columns;
};
template <class T>
__device__ Place place(const Plan<T>& plan, std::int64_t item, std::int64_t width) {
  const std::int64_t tile = item / plan.column_blocks;
  const std::int64_t column =
      (item - tile * plan.column_blocks) * plan.columns_each + threadIdx.x * kVector<T>;
  return {tile, column, width - column};
}

// One thread per token: what the sort sorts.
template <class T>
__global__ void embedding_keys_kernel(const __grid_constant__ EmbeddingBackward<T> op,
                                      const __grid_constant__ Plan<T> plan) {
  const std::int64_t tokens = op.token.extent[0], vocab = op.d_weight.extent[0];
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; n < tokens; n += stride) {
    plan.s.unsorted_keys[n] = embedding_key(op.token.data[n], vocab);
    plan.s.unsorted_positions[n] = static_cast<std::int32_t>(n);
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
__global__ void embedding_zero_kernel(const __grid_constant__ EmbeddingBackward<T> op,
                                      const __grid_constant__ Plan<T> plan) {
  constexpr int kWide = kVector<float>;
  const std::int64_t vocab = op.d_weight.extent[0], width = op.d_weight.extent[1];
  const std::int64_t tokens = op.token.extent[0];
  const unsigned lane = threadIdx.x % 32;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x - lane;
  for (; first < vocab; first += stride) {
    const auto key = static_cast<std::uint32_t>(first + lane);
    const std::int64_t found = lower_bound(plan.s.keys, 1, tokens, key);
    const bool hit = found < tokens && plan.s.keys[found] == key;
    const unsigned missed = __ballot_sync(0xFFFFFFFFU, first + lane < vocab && !hit);
    for (unsigned row = 0; row < 32; ++row) {
      if ((missed >> row & 1U) == 0) continue;
      Accumulator<T>* const to = op.d_weight.data + (first + row) * width;
      const float zeros[kWide]{};
      for (std::int64_t c = lane * kWide; c < width; c += 32 * kWide) {
        store(to + c, width - c, zeros);
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
  __device__ void write(float* to, std::int64_t columns, bool accumulate) const {
    float result[N];
    if (accumulate) load(to, columns, result);
#pragma unroll
    for (int i = 0; i < N; ++i) result[i] = accumulate ? result[i] + value[i] : value[i];
    store(to, columns, result);
  }
};

// One row of threads per tile and block of columns. Runs within the tile are complete and go to
// d_weight; the one that enters from the left and the one that goes on to the right go to scratch.
template <class T>
__global__ void embedding_tile_kernel(const __grid_constant__ EmbeddingBackward<T> op,
                                      const __grid_constant__ Plan<T> plan) {
  constexpr int kWide = kVector<T>;
  const EmbeddingScratch<T>& s = plan.s;
  const std::int64_t tokens = op.d_y.extent[0], width = op.d_y.extent[1];
  const std::uint32_t outside = embedding_outside(op.d_weight.extent[0]);
  for (std::int64_t item = first_item(); item < s.tiles * plan.column_blocks;
       item += item_stride()) {
    const auto [tile, column, columns] = place(plan, item, width);
    if (columns <= 0) continue;

    const std::int64_t begin = tile * s.tile;
    const std::int64_t end = begin + s.tile < tokens ? begin + s.tile : tokens;
    std::uint32_t key = s.keys[begin];
    bool enters = begin > 0 && s.keys[begin - 1] == key;
    RunSum<kWide> sum;
    const auto finish_run = [&](bool goes_on) {
      if (enters) {
        sum.write(s.head + tile * width + column, columns, false);
      } else if (goes_on) {
        sum.write(s.tail + tile * width + column, columns, false);
      } else if (key != outside) {
        sum.write(op.d_weight.data + key * width + column, columns, op.accumulate_d_weight);
      }
    };
    for (std::int64_t i = begin; i < end; i += kBatch) {
      float row[kBatch][kWide];
      std::uint32_t row_key[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        if (i + j >= end) continue;
        row_key[j] = s.keys[i + j];
        load(op.d_y.data + s.positions[i + j] * width + column, columns, row[j]);
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        if (i + j >= end) continue;
        if (row_key[j] != key) {
          finish_run(false);
          sum = {};
          enters = false;
          key = row_key[j];
        }
        sum.add(row[j]);
      }
    }
    finish_run(end < tokens && s.keys[end] == key);
  }
}

// One row of threads per tile and block of columns, idle unless a run begins in the tile and goes
// on: its pieces are added in order.
template <class T>
__global__ void embedding_join_kernel(const __grid_constant__ EmbeddingBackward<T> op,
                                      const __grid_constant__ Plan<T> plan) {
  constexpr int kWide = kVector<T>;
  const EmbeddingScratch<T>& s = plan.s;
  const std::int64_t width = op.d_y.extent[1];
  const std::uint32_t outside = embedding_outside(op.d_weight.extent[0]);
  for (std::int64_t item = first_item(); item < (s.tiles - 1) * plan.column_blocks;
       item += item_stride()) {
    const auto [tile, column, columns] = place(plan, item, width);
    const std::int64_t begin = tile * s.tile, end = begin + s.tile;
    const std::uint32_t key = s.keys[end];
    if (columns <= 0 || key == outside || s.keys[end - 1] != key) continue;
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
    sum.write(op.d_weight.data + key * width + column, columns, op.accumulate_d_weight);
  }
}

template <class T>
std::int64_t sort_bytes(const Cuda& device, const EmbeddingBackward<T>& op) {
  return static_cast<std::int64_t>(sort_scratch_bytes(device, op.token.extent[0]));
}

}  // namespace

template <class T>
std::size_t scratch_bytes(const Cuda& device, const EmbeddingBackward<T>& op) {
  ScratchCutter cut;
  EmbeddingScratch<T>(cut, op);
  cut.take<std::byte>(sort_bytes(device, op));
  return cut.bytes();
}

template <class T>
void run(const Cuda& device, const EmbeddingForward<T>& op) {
  if (op.y.size() == 0) return;
  note_row_width<T>("E", op.y.extent[1]);
  launch(device, RowGrid<T>(op.y.extent[1]).launch_for(op.y.extent[0]), embedding_forward_kernel<T>,
         op);
}

template <class T>
void run(const Cuda& device, const EmbeddingBackward<T>& op) {
  ScratchCutter cut(device, op.scratch);
  const EmbeddingScratch<T> s(cut, op);
  std::byte* const sorting = cut.take<std::byte>(sort_bytes(device, op));
  cut.expect_enough("embedding: scratch bytes");
  const auto [tokens, width] = op.d_y.extent;
  const std::int64_t vocab = op.d_weight.extent[0];
  note_row_width<T>("E", width);
  if (width == 0) return;
  const RowGrid<T> rows(width);
  const Plan<T> plan{s, rows.columns_each, rows.column_blocks};
  if (tokens > 0) {
    launch(device, {.blocks = blocks_for(tokens, kThreads), .threads = kThreads},
           embedding_keys_kernel<T>, op, plan);
    sort_pairs(device, {.keys_in = s.unsorted_keys,
                        .values_in = s.unsorted_positions,
                        .keys_out = s.keys,
                        .values_out = s.positions,
                        .count = tokens,
                        .bits = embedding_key_bits(vocab),
                        .scratch = sorting});
  }
  if (!op.accumulate_d_weight) {
    launch(device, {.blocks = blocks_for(vocab, kThreads), .threads = kThreads},
           embedding_zero_kernel<T>, op, plan);
  }
  if (tokens > 0) {
    launch(device, rows.launch_for(s.tiles * rows.column_blocks), embedding_tile_kernel<T>, op,
           plan);
    launch(device, rows.launch_for((s.tiles - 1) * rows.column_blocks), embedding_join_kernel<T>,
           op, plan);
  }
}

template <>
std::size_t scratch_bytes(const Cuda&, const EmbeddingBackward<double>&) {
  throw ConfigError("embedding: f64 on CUDA, expected f32 or bf16");
}
template <>
void run(const Cuda&, const EmbeddingForward<double>&) {
  throw ConfigError("embedding: f64 on CUDA, expected f32 or bf16");
}
template <>
void run(const Cuda&, const EmbeddingBackward<double>&) {
  throw ConfigError("embedding: f64 on CUDA, expected f32 or bf16");
}
template std::size_t scratch_bytes(const Cuda&, const EmbeddingBackward<float>&);
template std::size_t scratch_bytes(const Cuda&, const EmbeddingBackward<bf16>&);
template void run(const Cuda&, const EmbeddingForward<float>&);
template void run(const Cuda&, const EmbeddingForward<bf16>&);
template void run(const Cuda&, const EmbeddingBackward<float>&);
template void run(const Cuda&, const EmbeddingBackward<bf16>&);

}  // namespace carousel
