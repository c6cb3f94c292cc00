#include <cmath>
#include <cstdint>

#include "kernels/additive_attention/additive_attention.h"
#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/common/scratch.h"
#include "kernels/reduce/reduce.h"

// A block has a query of a row, or a key of a row. Sums over columns belong to a warp, sums over keys or
// queries to a thread, which keeps 128 bits of columns: what all threads multiply by is one address.
namespace carousel {
namespace {

constexpr int kThreads = 128;  // with 4 floats a thread, a block covers 512 columns at a time
constexpr int kWarps = kThreads / kWarp;

struct Shared {
  BlockReduceStorage<float, kThreads> value;
};

/// Calls f(outer, row) for the items [outer, rows] of this block.
template <class F>
__device__ void for_items(std::int64_t outer, std::int64_t rows, const F& f) {
  for (std::int64_t item = blockIdx.x; item < outer * rows; item += gridDim.x) {
    const std::int64_t first = item / rows;
    f(first, item - first * rows);
  }
}

/// Calls f(column, count) for this thread's pieces of a row; `count` reaches to the row's end.
template <class T, class F>
__device__ void for_columns(std::int64_t columns, const F& f) {
  for (std::int64_t c = static_cast<std::int64_t>(threadIdx.x) * kVector<T>; c < columns;
       c += kThreads * kVector<T>) {
    f(c, columns - c);
  }
}

/// Σ_c term(a[c], b[c]) of a warp, 128 bits a lane at a time; a term of zeros is 0.
template <class T, class Term>
__device__ float sum_of_warp(std::int64_t columns, const Term& term) {
  float sum = 0;
  const std::int64_t lane = threadIdx.x % kWarp;
  for (std::int64_t c = lane * kVector<T>; c < columns; c += kWarp * kVector<T>) {
    sum = term(c, columns - c, sum);
  }
  return warp_reduce(sum, Sum{});
}

// One block per query and row: a warp per score, then the softmax, then a thread per columns of y.
template <class T>
__global__ void __launch_bounds__(kThreads)
    additive_attention_forward_kernel(const __grid_constant__ AdditiveAttentionForward<T> op) {
  constexpr int N = kVector<T>;
  auto& shared = dynamic_shared<Shared>();
  const auto [queries, rows, width] = op.q.extent;
  const std::int64_t all = op.k.extent[0], columns = op.v.extent[2];
  for_items(queries, rows, [&](std::int64_t t, std::int64_t b) {
    const std::int64_t keys = additive_keys(op.length, b, all);
    const T* const __restrict__ query = op.q.data + (t * rows + b) * width;
    float* const weight = op.weights.data + (b * queries + t) * all;
    for (std::int64_t s = threadIdx.x / kWarp; s < keys; s += kWarps) {
      const T* const key = op.k.data + (s * rows + b) * width;
      const float z = sum_of_warp<T>(width, [&](std::int64_t h, std::int64_t count, float sum) {
        float q[N], k[N], score[N];
        load(query + h, count, q);
        load(key + h, count, k);
        load(op.score.data + h, count, score);
#pragma unroll
        for (int i = 0; i < N; ++i) sum = fmaf(score[i], tanhf(q[i] + k[i]), sum);
        return sum;
      });
      if (threadIdx.x % kWarp == 0) weight[s] = z;
    }
    __syncthreads();
    float largest = -INFINITY, sum = 0;
    for (std::int64_t s = threadIdx.x; s < keys; s += kThreads) largest = Max{}(largest, weight[s]);
    largest = block_reduce<kThreads>(largest, Max{}, shared.value);
    for (std::int64_t s = threadIdx.x; s < keys; s += kThreads) sum += expf(weight[s] - largest);
    sum = block_reduce<kThreads>(sum, Sum{}, shared.value);
    for (std::int64_t s = threadIdx.x; s < all; s += kThreads) {
      weight[s] = s < keys ? expf(weight[s] - largest) / sum : 0.0F;
    }
    __syncthreads();
    for_columns<T>(columns, [&](std::int64_t d, std::int64_t count) {
      float y[N]{}, v[N];
      for (std::int64_t s = 0; s < keys; ++s) {
        load(op.v.data + (s * rows + b) * columns + d, count, v);
        const float own = weight[s];
#pragma unroll
        for (int i = 0; i < N; ++i) y[i] = fmaf(own, v[i], y[i]);
      }
      store(op.y.data + (t * rows + b) * columns + d, count, y);
    });
    __syncthreads();  // the next item's scores
  });
}

/// The arrays of the backward pass.
struct Parts {
  float* d_z;      ///< [B, T, S]
  float* d_score;  ///< [S·B, H]; null if it is not wanted
  float* sums;     ///< of ColumnSum
};

template <class T>
Parts lay_out(const AdditiveAttentionBackward<T>& op, ScratchCutter& cut) {
  const auto [queries, rows, width] = op.q.extent;
  const std::int64_t keys = op.k.extent[0];
  const bool wanted = op.d_score.present();
  return {cut.take<float>(rows * queries * keys), cut.take<float>(wanted ? keys * rows * width : 0),
          cut.take<float>(wanted ? column_sum_scratch(keys * rows, width) : 0)};
}

// One block per query and row: a warp per d_weight, then d_z.
template <class T>
__global__ void __launch_bounds__(kThreads)
    additive_attention_scores_kernel(const __grid_constant__ AdditiveAttentionBackward<T> op,
                                     const __grid_constant__ Parts parts) {
  constexpr int N = kVector<T>;
  auto& shared = dynamic_shared<Shared>();
  const auto [queries, rows, columns] = op.d_y.extent;
  const std::int64_t all = op.k.extent[0];
  for_items(queries, rows, [&](std::int64_t t, std::int64_t b) {
    const std::int64_t keys = additive_keys(op.length, b, all), first = (b * queries + t) * all;
    const T* const __restrict__ d_y = op.d_y.data + (t * rows + b) * columns;
    const float* const __restrict__ weight = op.weights.data + first;
    float* const d_z = parts.d_z + first;
    for (std::int64_t s = threadIdx.x / kWarp; s < keys; s += kWarps) {
      const T* const value = op.v.data + (s * rows + b) * columns;
      const float d_weight =
          sum_of_warp<T>(columns, [&](std::int64_t c, std::int64_t count, float sum) {
            float v[N], d[N];
            load(value + c, count, v);
            load(d_y + c, count, d);
#pragma unroll
            for (int i = 0; i < N; ++i) sum = fmaf(v[i], d[i], sum);
            return sum;
          });
      if (threadIdx.x % kWarp == 0) d_z[s] = d_weight;
    }
    __syncthreads();
    float mean = 0;
    for (std::int64_t s = threadIdx.x; s < keys; s += kThreads)
      mean = fmaf(weight[s], d_z[s], mean);
    mean = block_reduce<kThreads>(mean, Sum{}, shared.value);
    for (std::int64_t s = threadIdx.x; s < keys; s += kThreads) {
      d_z[s] = weight[s] * (d_z[s] - mean);
    }
    __syncthreads();  // the next item's scores
  });
}

/// to (+)= value, of 128 bits of columns.
template <class T>
__device__ void put(const Gradient<T, 3>& to, std::int64_t at, std::int64_t count,
                    float (&value)[kVector<T>]) {
  T* const out = to.view.data + at;
  if (to.accumulate) {
    float before[kVector<T>];
    load(out, count, before);
#pragma unroll
    for (int i = 0; i < kVector<T>; ++i) value[i] += before[i];
  }
  store(out, count, value);
}

// One block per key and row: a thread per columns of d_k, of its part of d_score and of d_v.
template <class T>
__global__ void __launch_bounds__(kThreads)
    additive_attention_keys_kernel(const __grid_constant__ AdditiveAttentionBackward<T> op,
                                   const __grid_constant__ Parts parts) {
  constexpr int N = kVector<T>;
  const auto [queries, rows, width] = op.q.extent;
  const std::int64_t all = op.k.extent[0], columns = op.v.extent[2];
  for_items(all, rows, [&](std::int64_t s, std::int64_t b) {
    const bool used = s < additive_keys(op.length, b, all);
    const std::int64_t key = s * rows + b, first = b * queries * all + s;
    for_columns<T>(width, [&](std::int64_t h, std::int64_t count) {
      float k[N]{}, q[N], d_k[N]{}, d_score[N]{};
      if (used) load(op.k.data + key * width + h, count, k);
      for (std::int64_t t = 0; used && t < queries; ++t) {
        load(op.q.data + (t * rows + b) * width + h, count, q);
        const float d = parts.d_z[first + t * all];
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float e = tanhf(q[i] + k[i]);
          d_k[i] = fmaf(d, (1 - e) * (1 + e), d_k[i]);
          d_score[i] = fmaf(d, e, d_score[i]);
        }
      }
      if (parts.d_score != nullptr) store(parts.d_score + key * width + h, count, d_score);
      if (!op.d_k.present() || (!used && op.d_k.accumulate)) return;
      load(op.score.data + h, count, k);
#pragma unroll
      for (int i = 0; i < N; ++i) d_k[i] = used ? d_k[i] * k[i] : 0.0F;
      put(op.d_k, key * width + h, count, d_k);
    });
    if (!op.d_v.present() || (!used && op.d_v.accumulate)) return;
    for_columns<T>(columns, [&](std::int64_t c, std::int64_t count) {
      float d_v[N]{}, d[N];
      for (std::int64_t t = 0; used && t < queries; ++t) {
        load(op.d_y.data + (t * rows + b) * columns + c, count, d);
        const float own = op.weights.data[first + t * all];
#pragma unroll
        for (int i = 0; i < N; ++i) d_v[i] = fmaf(own, d[i], d_v[i]);
      }
      put(op.d_v, key * columns + c, count, d_v);
    });
  });
}

// One block per query and row: a thread per columns of d_q.
template <class T>
__global__ void __launch_bounds__(kThreads)
    additive_attention_queries_kernel(const __grid_constant__ AdditiveAttentionBackward<T> op,
                                      const __grid_constant__ Parts parts) {
  constexpr int N = kVector<T>;
  const auto [queries, rows, width] = op.q.extent;
  const std::int64_t all = op.k.extent[0];
  for_items(queries, rows, [&](std::int64_t t, std::int64_t b) {
    const std::int64_t keys = additive_keys(op.length, b, all), query = t * rows + b;
    const float* const __restrict__ d_z = parts.d_z + (b * queries + t) * all;
    for_columns<T>(width, [&](std::int64_t h, std::int64_t count) {
      float q[N], k[N], d_q[N]{};
      load(op.q.data + query * width + h, count, q);
      for (std::int64_t s = 0; s < keys; ++s) {
        load(op.k.data + (s * rows + b) * width + h, count, k);
        const float d = d_z[s];
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float e = tanhf(q[i] + k[i]);
          d_q[i] = fmaf(d, (1 - e) * (1 + e), d_q[i]);
        }
      }
      load(op.score.data + h, count, k);
#pragma unroll
      for (int i = 0; i < N; ++i) d_q[i] *= k[i];
      put(op.d_q, query * width + h, count, d_q);
    });
  });
}

Grid grid_for(std::int64_t items) {
  return {.blocks = blocks_for(items, 1), .threads = kThreads, .shared_bytes = sizeof(Shared)};
}

template <class T>
void note_widths(std::int64_t width, std::int64_t columns) {
  note_row_width<T>("H", width);
  note_row_width<T>("D", columns);
}

}  // namespace

template <class T>
void AdditiveAttentionForward<T>::run(const Cuda& device) const {
  note_widths<T>(q.extent[2], v.extent[2]);
  launch(device, grid_for(q.extent[0] * q.extent[1]), additive_attention_forward_kernel<T>, *this);
}

template <class T>
std::size_t AdditiveAttentionBackward<T>::scratch_bytes(const Cuda&) const {
  ScratchCutter cut;
  lay_out(*this, cut);
  return cut.bytes();
}

template <class T>
void AdditiveAttentionBackward<T>::run(const Cuda& device) const {
  ScratchCutter cut(device, scratch);
  const Parts parts = lay_out(*this, cut);
  cut.expect_enough("additive_attention: bytes of scratch");
  const auto [queries, rows, width] = q.extent;
  const std::int64_t keys = k.extent[0];
  note_widths<T>(width, v.extent[2]);
  launch(device, grid_for(queries * rows), additive_attention_scores_kernel<T>, *this, parts);
  if (d_k.present() || d_v.present() || d_score.present()) {
    launch(device, grid_for(keys * rows), additive_attention_keys_kernel<T>, *this, parts);
  }
  if (d_q.present()) {
    launch(device, grid_for(queries * rows), additive_attention_queries_kernel<T>, *this, parts);
  }
  if (!d_score.present()) return;
  ColumnSum<float>{.x = {parts.d_score, {keys * rows, width}},
                   .sum = d_score,
                   .scratch = {parts.sums, {column_sum_scratch(keys * rows, width)}}}
      .run(device);
}

template void AdditiveAttentionForward<float>::run(const Cuda&) const;
template void AdditiveAttentionForward<bf16>::run(const Cuda&) const;
template std::size_t AdditiveAttentionBackward<float>::scratch_bytes(const Cuda&) const;
template std::size_t AdditiveAttentionBackward<bf16>::scratch_bytes(const Cuda&) const;
template void AdditiveAttentionBackward<float>::run(const Cuda&) const;
template void AdditiveAttentionBackward<bf16>::run(const Cuda&) const;

}  // namespace carousel
