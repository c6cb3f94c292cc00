#pragma once

#include "kernels/attention/attention.h"
#include "kernels/attention/tile.cuh"
#include "kernels/common/cuda/shared.cuh"

namespace carousel::attention_cuda {

/// What a block holds: kRows rows of its own, kOther of those that pass through shared memory, and kWidth
/// columns.
template <int kColumns, int kOwnRows, int kOtherRows>
struct Tile {
  static constexpr int kWidth = kColumns, kRows = kOwnRows, kOther = kOtherRows;
  static constexpr int kThreads = kRows / kWarpRows * kWarp;
};

template <class T, class Tile>
struct ForwardShared {
  Row<T, Tile::kWidth> q[Tile::kRows], k[Tile::kOther], v[Tile::kOther];
};

/// What is subtracted before exp: not −∞, for then a query without scores above it would become NaN.
__device__ inline float shift_of(float x) { return x == -INFINITY ? 0.0F : x; }

/// The running maximum and sum of this lane's two rows; the four lanes of a row have parts of the sum.
struct RunningRows {
  float max[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  __device__ float shift(int half) const { return shift_of(max[half]); }
};

/// Scores become exp(z − max), and y and the sums are scaled to the new maximum.
template <int kPieces, int kOutputs>
__device__ void exponentiate(Piece (&scores)[kPieces], RunningRows& rows, Piece (&y)[kOutputs]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float top = rows.max[half];
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {  // NaN is passed over; its exponential is found again
      top = fmaxf(top, fmaxf(scores[j][2 * half], scores[j][2 * half + 1]));
    }
    top = warp_reduce<4>(top, [](float a, float b) { return fmaxf(a, b); });
    const float before = rows.max[half];
    rows.max[half] = top;
    const float shift = rows.shift(half), factor = top == before ? 1.0F : expf(before - shift);
    float sum = rows.sum[half] * factor;
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
#pragma unroll
      for (int e = 2 * half; e < 2 * half + 2; ++e) {
        scores[j][e] = expf(scores[j][e] - shift);
        sum += scores[j][e];
      }
    }
    rows.sum[half] = sum;
#pragma unroll
    for (int j = 0; j < kOutputs; ++j) {
      y[j][2 * half] *= factor;
      y[j][2 * half + 1] *= factor;
    }
  }
}

/// One block per tile of queries of a head, one warp per 16 of them; keys and values pass through shared
/// memory.
template <class T, class Tile, bool kBiased>
__global__ void __launch_bounds__(Tile::kThreads)
    attention_forward_kernel(const __grid_constant__ AttentionForward<T> op) {
  constexpr int kQueries = Tile::kRows, kKeys = Tile::kOther;
  auto& shared = dynamic_shared<ForwardShared<T, Tile>>();
  const AttentionRule& rule = op.rule;
  const std::int64_t width = rule.head_width, queries = op.q.steps();
  const Place at((queries + kQueries - 1) / kQueries, rule.heads);
  const std::int64_t t0 = at.tile * kQueries, group = rule.group_of(at.head);
  const std::int64_t keys = steps_of(op.length, at.b, op.k.steps());
  const std::int64_t last = (t0 + kQueries < queries ? t0 + kQueries : queries) - 1;
  const std::int64_t end = rule.end_key(last, keys);
  const int first_row = static_cast<int>(threadIdx.x / kWarp) * kWarpRows;
  const float drop_scale = dropout_scale(op.drop_probability);
  load_tile<kQueries>(shared.q, op.q, at.b, at.head, width, t0, queries);
  Piece y[Tile::kWidth / 8];
  clear(y);
  RunningRows rows;
  for (std::int64_t s0 = rule.first_key(t0) / kKeys * kKeys; s0 < end; s0 += kKeys) {
    __syncthreads();  // the tile before this one has been read
    load_tile<kKeys>(shared.k, op.k, at.b, group, width, s0, keys);
    load_tile<kKeys>(shared.v, op.v, at.b, group, width, s0, keys);
    __syncthreads();
    Piece scores[kKeys / 8];
    multiply_rows(scores, shared.q, first_row, shared.k, op.tf32);
    for_elements(scores, [&](int row, int column, float& z) {
      const std::int64_t t = t0 + first_row + row, s = s0 + column;
      const bool seen = s >= rule.first_key(t) && s < rule.end_key(t, keys);
      z = seen ? z * rule.scale : -INFINITY;
      if constexpr (kBiased) {
        if (seen && t < queries) z += bias_of(op.bias, at.head, t)[s];
      }
    });
    exponentiate(scores, rows, y);
    if (op.drop_probability > 0) {
      for_elements(scores, [&](int row, int column, float& weight) {
        const std::int64_t t = t0 + first_row + row;
        const std::int64_t element =
            ((at.b * rule.heads + at.head) * queries + t) * op.k.steps() + s0 + column;
        weight *= kept_factor(op.random, element, op.drop_probability, drop_scale);
      });
    }
    add_product(y, scores, shared.v, op.tf32);
  }
  const Lane lane;
  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = warp_reduce<4>(rows.sum[half], Sum{});
    inverse[half] = sum == 0 ? 0.0F : 1.0F / sum;
    const std::int64_t t = t0 + first_row + lane.row(half);
    if (op.lse.present() && lane.t == 0 && t < queries) {
      op.lse(at.b, at.head, t) = rows.max[half] + logf(sum);
    }
  }
  for_elements(y, [&](int row, int, float& value) { value *= row < 8 ? inverse[0] : inverse[1]; });
  store_head(HeadGradient<T>{op.y, false}, at.b, at.head, width, t0 + first_row, queries, 1.0F, y);
}

/// On request, for plots: one warp per query, whose lanes take keys in turn. The scores wait in the
/// result.
template <class T>
__global__ void attention_weights_kernel(const __grid_constant__ AttentionForward<T> op) {
  const AttentionRule& rule = op.rule;
  const std::int64_t queries = op.q.steps(), all = op.k.steps();
  const Place at((queries + blockDim.y - 1) / blockDim.y, rule.heads);
  const std::int64_t t = at.tile * blockDim.y + threadIdx.y;
  const bool real = t < queries;
  const std::int64_t keys = real ? steps_of(op.length, at.b, all) : 0;
  const T* const q = op.q.head(at.b, at.head, rule.head_width) + (real ? t : 0) * op.q.stride();
  const T* const k = op.k.head(at.b, rule.group_of(at.head), rule.head_width);
  float* const to = &op.weights(at.b, at.head, real ? t : 0, 0);
  float top = -INFINITY, sum = 0;
  for (std::int64_t s = threadIdx.x; real && s < all; s += kWarp) {
    float z = 0;
    const bool seen = s >= rule.first_key(t) && s < rule.end_key(t, keys);
    for (std::int64_t d = 0; seen && d < rule.head_width; ++d) {
      z = fmaf(static_cast<float>(q[d]), static_cast<float>(k[s * op.k.stride() + d]), z);
    }
    to[s] = seen ? z * rule.scale : -INFINITY;
    if (seen && op.bias.present()) to[s] += bias_of(op.bias, at.head, t)[s];
    top = fmaxf(top, to[s]);
  }
  top = warp_reduce(top, [](float a, float b) { return fmaxf(a, b); });
  const float shift = top == -INFINITY ? 0.0F : top;
  for (std::int64_t s = threadIdx.x; real && s < all; s += kWarp) {
    to[s] = expf(to[s] - shift);
    sum += to[s];
  }
  sum = warp_reduce(sum, Sum{});
  for (std::int64_t s = threadIdx.x; real && s < all; s += kWarp)
    to[s] = sum == 0 ? 0.0F : to[s] / sum;
}

}  // namespace carousel::attention_cuda
