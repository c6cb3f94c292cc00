#pragma once

#include "kernels/attention/forward.cuh"

namespace carousel::attention_cuda {

template <class T, class Tile>
struct BackwardShared {
  Row<T, Tile::kWidth> own[2][Tile::kRows];     ///< q and d_y, or k and v
  Row<T, Tile::kWidth> other[2][Tile::kOther];  ///< k and v, or q and d_y
  float lse[Tile::kOther], delta[Tile::kOther];
};

/// delta[b, a, t] = Σ_d d_y·y: one warp each.
template <class T>
__global__ void attention_delta_kernel(const __grid_constant__ AttentionBackward<T> op,
                                       float* delta) {
  const std::int64_t queries = op.q.steps(), width = op.rule.head_width;
  const Place at((queries + blockDim.y - 1) / blockDim.y, op.rule.heads);
  const std::int64_t t = at.tile * blockDim.y + threadIdx.y;
  const T* const y = op.y.head(at.b, at.head, width) + t * op.y.stride();
  const T* const d_y = op.d_y.head(at.b, at.head, width) + t * op.d_y.stride();
  float sum = 0;
  for (std::int64_t d = threadIdx.x; t < queries && d < width; d += kWarp) {
    sum = fmaf(static_cast<float>(d_y[d]), static_cast<float>(y[d]), sum);
  }
  sum = warp_reduce(sum, Sum{});
  if (t < queries && threadIdx.x == 0) delta[(at.b * op.rule.heads + at.head) * queries + t] = sum;
}

/// Of one pair: a score and the gradient of its weight become the factor of d_y in d_v and the gradient
/// of the score.
struct Pairs {
  float scale, drop_probability, drop_scale;

  __device__ void differentiate(float& z, float& d_weight, float lse, float delta,
                                const RandomSource& random, std::int64_t element) const {
    const float weight = expf(z * scale - lse);
    float kept = 1;
    if (drop_probability > 0) kept = kept_factor(random, element, drop_probability, drop_scale);
    d_weight = weight * (d_weight * kept - delta);
    z = weight * kept;
  }
};

/// One block per tile of queries of a head, one warp per 16 of them; keys pass through shared memory.
template <class T, class Tile, bool kBiased>
__global__ void __launch_bounds__(Tile::kThreads)
    attention_backward_queries_kernel(const __grid_constant__ AttentionBackward<T> op,
                                      const float* deltas) {
  constexpr int kQueries = Tile::kRows, kKeys = Tile::kOther;
  auto& shared = dynamic_shared<BackwardShared<T, Tile>>();
  const AttentionRule& rule = op.rule;
  const std::int64_t width = rule.head_width, queries = op.q.steps();
  const Place at((queries + kQueries - 1) / kQueries, rule.heads);
  const std::int64_t t0 = at.tile * kQueries, group = rule.group_of(at.head);
  const std::int64_t keys = steps_of(op.length, at.b, op.k.steps());
  const std::int64_t last = (t0 + kQueries < queries ? t0 + kQueries : queries) - 1;
  const std::int64_t end = rule.end_key(last, keys);
  const std::int64_t head_row = (at.b * rule.heads + at.head) * queries;
  const int first_row = static_cast<int>(threadIdx.x / kWarp) * kWarpRows;
  // A score that has its bias has its scale already.
  const Pairs pairs{kBiased ? 1.0F : rule.scale, op.drop_probability,
                    dropout_scale(op.drop_probability)};
  load_tile<kQueries>(shared.own[0], op.q, at.b, at.head, width, t0, queries);
  load_tile<kQueries>(shared.own[1], op.d_y, at.b, at.head, width, t0, queries);
  float lse[2], delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t t = t0 + first_row + Lane().row(half);
    lse[half] = t < queries ? op.lse.data[head_row + t] : 0.0F;
    if constexpr (kBiased) lse[half] = shift_of(lse[half]);
    delta[half] = t < queries ? deltas[head_row + t] : 0.0F;
  }
  Piece d_q[Tile::kWidth / 8];
  clear(d_q);
  for (std::int64_t s0 = rule.first_key(t0) / kKeys * kKeys; s0 < end; s0 += kKeys) {
    __syncthreads();  // the tile before this one has been read
    load_tile<kKeys>(shared.other[0], op.k, at.b, group, width, s0, keys);
    load_tile<kKeys>(shared.other[1], op.v, at.b, group, width, s0, keys);
    __syncthreads();
    Piece z[kKeys / 8], d_z[kKeys / 8];
    multiply_rows(z, shared.own[0], first_row, shared.other[0], op.tf32);
    multiply_rows(d_z, shared.own[1], first_row, shared.other[1], op.tf32);
    const Lane lane;
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const std::int64_t t = t0 + first_row + lane.row(e / 2),
                           s = s0 + 8 * j + 2 * lane.t + e % 2;
        if (t < queries && s >= rule.first_key(t) && s < rule.end_key(t, keys)) {
          if constexpr (kBiased) {
            z[j][e] = fmaf(z[j][e], rule.scale, bias_of(op.bias, at.head, t)[s]);
          }
          pairs.differentiate(z[j][e], d_z[j][e], lse[e / 2], delta[e / 2], op.random,
                              (head_row + t) * op.k.steps() + s);
        } else {
          d_z[j][e] = 0;
        }
      }
    }
    add_product(d_q, d_z, shared.other[0], op.tf32);
  }
  store_head(op.d_q, at.b, at.head, width, t0 + first_row, queries, rule.scale, d_q);
}

/// Which of d_k and d_v a kernel makes. The sums of both do not fit into the registers if D is 256.
enum class Keep : std::uint8_t { both, keys, values };

/// One block per tile of keys of a head of keys, one warp per 16 of them; the queries of all heads that
/// read them pass through shared memory. Rows are keys: all products are transposes.
template <class T, class Tile, Keep kKeep, bool kBiased>
__global__ void __launch_bounds__(Tile::kThreads)
    attention_backward_keys_kernel(const __grid_constant__ AttentionBackward<T> op,
                                   const float* deltas) {
  constexpr int kKeys = Tile::kRows, kQueries = Tile::kOther;
  constexpr bool kForKeys = kKeep != Keep::values, kForValues = kKeep != Keep::keys;
  auto& shared = dynamic_shared<BackwardShared<T, Tile>>();
  const AttentionRule& rule = op.rule;
  const std::int64_t width = rule.head_width, queries = op.q.steps(), all = op.k.steps();
  const Place at((all + kKeys - 1) / kKeys, rule.groups());
  const std::int64_t s0 = at.tile * kKeys, keys = steps_of(op.length, at.b, all);
  const std::int64_t last_key = (s0 + kKeys < keys ? s0 + kKeys : keys) - 1;
  const std::int64_t share = rule.heads / rule.groups();
  const int first_row = static_cast<int>(threadIdx.x / kWarp) * kWarpRows;
  // A score that has its bias has its scale already.
  const Pairs pairs{kBiased ? 1.0F : rule.scale, op.drop_probability,
                    dropout_scale(op.drop_probability)};
  load_tile<kKeys>(shared.own[0], op.k, at.b, at.head, width, s0, keys);
  load_tile<kKeys>(shared.own[1], op.v, at.b, at.head, width, s0, keys);
  Piece d_k[kForKeys ? Tile::kWidth / 8 : 1], d_v[kForValues ? Tile::kWidth / 8 : 1];
  clear(d_k);
  clear(d_v);
  for (std::int64_t a = at.head * share; a < (at.head + 1) * share; ++a) {
    const std::int64_t head_row = (at.b * rule.heads + a) * queries;
    for (std::int64_t t0 = 0; t0 < queries; t0 += kQueries) {
      const std::int64_t last = (t0 + kQueries < queries ? t0 + kQueries : queries) - 1;
      if (rule.end_key(last, keys) <= s0 || rule.first_key(t0) > last_key) continue;
      __syncthreads();  // the tile before this one has been read
      load_tile<kQueries>(shared.other[0], op.q, at.b, a, width, t0, queries);
      load_tile<kQueries>(shared.other[1], op.d_y, at.b, a, width, t0, queries);
      for (int i = static_cast<int>(threadIdx.x); i < kQueries; i += static_cast<int>(blockDim.x)) {
        const bool real = t0 + i < queries;
        shared.lse[i] = real ? op.lse.data[head_row + t0 + i] : 0.0F;
        if constexpr (kBiased) shared.lse[i] = shift_of(shared.lse[i]);
        shared.delta[i] = real ? deltas[head_row + t0 + i] : 0.0F;
      }
      __syncthreads();
      Piece z[kQueries / 8], d_z[kQueries / 8];
      multiply_rows(z, shared.own[0], first_row, shared.other[0], op.tf32);
      multiply_rows(d_z, shared.own[1], first_row, shared.other[1], op.tf32);
      const Lane lane;
#pragma unroll
      for (int j = 0; j < kQueries / 8; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int column = 8 * j + 2 * lane.t + e % 2;
          const std::int64_t t = t0 + column, s = s0 + first_row + lane.row(e / 2);
          if (t < queries && s >= rule.first_key(t) && s < rule.end_key(t, keys)) {
            if constexpr (kBiased) {
              z[j][e] = fmaf(z[j][e], rule.scale, bias_of(op.bias, a, t)[s]);
            }
            pairs.differentiate(z[j][e], d_z[j][e], shared.lse[column], shared.delta[column],
                                op.random, (head_row + t) * all + s);
          } else {
            z[j][e] = d_z[j][e] = 0;
          }
        }
      }
      if constexpr (kForValues) add_product(d_v, z, shared.other[1], op.tf32);
      if constexpr (kForKeys) add_product(d_k, d_z, shared.other[0], op.tf32);
    }
  }
  if constexpr (kForKeys) {
    if (op.d_k.present()) {
      store_head(op.d_k, at.b, at.head, width, s0 + first_row, all, rule.scale, d_k);
    }
  }
  if constexpr (kForValues) {
    if (op.d_v.present()) {
      store_head(op.d_v, at.b, at.head, width, s0 + first_row, all, 1.0F, d_v);
    }
  }
}

}  // namespace carousel::attention_cuda
