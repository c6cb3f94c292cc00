#pragma once

#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/recurrent_sequence/cuda/places.cuh"

// One block per row, which it reads once for the mean, once for the variance around that, and once
// to write; a row of four gates of 1024 units stays in the first-level cache.
namespace carousel {

/// A row of G·H = 1024 bf16 is one vector for each of them; narrower blocks let more rows of a small
/// batch share a multiprocessor.
inline constexpr int kNormalizeThreads = 128;
inline constexpr float kVarianceFloor = 1e-5F;

struct SumPair {
  float first = 0, second = 0;
  __device__ friend SumPair operator+(SumPair a, SumPair b) {
    return {a.first + b.first, a.second + b.second};
  }
};
struct NormalizeShared {
  BlockReduceStorage<float, kNormalizeThreads> sum;
  BlockReduceStorage<SumPair, kNormalizeThreads> pair;
};

inline Grid grid_of_rows(std::int64_t rows, std::int64_t parts = 1) {
  return {.blocks = blocks_for(rows, 1),
          .blocks_y = parts,
          .threads = kNormalizeThreads,
          .shared_bytes = sizeof(NormalizeShared)};
}

/// The row of `deviation` that a normalized phase has.
inline std::int64_t normalization_of(const auto& op, int phase) {
  int which = op.gain.present() ? 2 : 0;
  for (int p = 1; p < phase; ++p) which += op.cell->is_normalized(p) ? 1 : 0;
  return which;
}

/// Calls f(gate, place) for this thread's share of a row of `gates` times `width` units, whatever the
/// row of the place says.
template <class T, class F>
__device__ void for_gates(std::int64_t gates, std::int64_t width, const F& f) {
  const std::int64_t vectors = (width + kVector<T> - 1) / kVector<T>;
  for (std::int64_t i = threadIdx.x; i < gates * vectors; i += kNormalizeThreads) {
    const std::int64_t unit = i % vectors * kVector<T>;
    f(i / vectors, Place{0, unit, width - unit});
  }
}

/// What is normalized: rows first … first + rows − 1 of all T·B, of `gates` times `width` columns.
template <class T, class V>
struct Normalization {
  std::int64_t first, rows, gates, width;
  V* values;  ///< [rows, columns] in; out: gain ∘ the normalized as stored, if there is a gain
  const float* gain;  ///< [columns] or null
  T* normal;          ///< [T·B, columns] out
  float* deviation;   ///< [T·B] out
  bool of_h;          ///< not done where there is no ĥ
};

/// Rows that are not normalized get zeros, and their values are left. `values` null: none is.
template <class T, class V>
__global__ void __launch_bounds__(kNormalizeThreads)
    recurrent_sequence_normalize_kernel(const __grid_constant__ RecurrentSequenceForward<T> op,
                                        const __grid_constant__ Normalization<T, V> given) {
  constexpr int N = kVector<T>;
  auto& shared = dynamic_shared<NormalizeShared>();
  const std::int64_t batch = op.h.extent[1], gates = given.gates, width = given.width;
  const auto columns = static_cast<float>(gates * width > 0 ? gates * width : 1);
  for (std::int64_t r = blockIdx.x; r < given.rows; r += gridDim.x) {
    const std::int64_t n = given.first + r, t = n / batch;
    const RowSteps row(op, n % batch);
    const bool exists =
        given.values != nullptr && row.has(t) && (!given.of_h || has_h_before(op, row, t));
    V* const values = given.values + (exists ? r * gates : 0) * width;
    float sum = 0, squares = 0;
    for_gates<T>(exists ? gates : 0, width, [&](std::int64_t k, Place place) {
      float x[N];
      load_units(values, k, width, place, x);  // a tail is filled with zeros
#pragma unroll
      for (int i = 0; i < N; ++i) sum += x[i];
    });
    const float mean = block_reduce<kNormalizeThreads>(sum, Sum{}, shared.sum) / columns;
    for_gates<T>(exists ? gates : 0, width, [&](std::int64_t k, Place place) {
      float x[N];
      load_units(values, k, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (i < place.count) squares += (x[i] - mean) * (x[i] - mean);
      }
    });
    squares = block_reduce<kNormalizeThreads>(squares, Sum{}, shared.sum);
    const float deviation = exists ? 1.0F / sqrtf(squares / columns + kVarianceFloor) : 0.0F;
    if (threadIdx.x == 0) given.deviation[n] = deviation;
    for_gates<T>(gates, width, [&](std::int64_t k, Place place) {
      float x[N], gain[N];
      load_units(exists ? values : nullptr, k, width, place, x);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = exists ? (x[i] - mean) * deviation : 0.0F;
      store_units(given.normal, n * gates + k, width, place, x);
      if (!exists || given.gain == nullptr) return;
      load_units(given.gain, k, width, place, gain);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] = gain[i] * static_cast<float>(static_cast<T>(x[i]));
      store_units(values, k, width, place, x);
    });
  }
}

/// Gradients of normalized values into those of the values: with x̂ as stored,
/// d_v = r·(δ − mean(δ) − x̂·mean(δ∘x̂)). `read(k, place, δ, x̂)` gives what this thread works on, twice,
/// and `write` gets d_v.
template <class T, class Read, class Write>
__device__ void normalize_backward(std::int64_t gates, std::int64_t width, float deviation,
                                   const Read& read, const Write& write) {
  constexpr int N = kVector<T>;
  auto& shared = dynamic_shared<NormalizeShared>();
  const auto columns = static_cast<float>(gates * width > 0 ? gates * width : 1);
  SumPair sums;
  for_gates<T>(gates, width, [&](std::int64_t k, Place place) {
    float d[N], x[N];
    read(k, place, d, x);
#pragma unroll
    for (int i = 0; i < N; ++i) sums = sums + SumPair{d[i], d[i] * x[i]};
  });
  sums = block_reduce<kNormalizeThreads>(sums, Sum{}, shared.pair);
  const float mean = sums.first / columns, slope = sums.second / columns;
  for_gates<T>(gates, width, [&](std::int64_t k, Place place) {
    float d[N], x[N];
    read(k, place, d, x);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      // A row that was not normalized has no deviation.
      d[i] = deviation == 0.0F ? 0.0F : deviation * (d[i] - mean - x[i] * slope);
    }
    write(k, place, d);
  });
}

/// Step t of a normalized phase: d_operand [B, H], in place. `normal` and `deviation` are the
/// phase's.
template <class T>
__global__ void __launch_bounds__(kNormalizeThreads)
    recurrent_sequence_normalize_operand_backward_kernel(const std::int64_t batch,
                                                         const std::int64_t width,
                                                         const std::int64_t t, const T* normal,
                                                         const float* deviation, float* d_operand) {
  constexpr int N = kVector<T>;
  for (std::int64_t row = blockIdx.x; row < batch; row += gridDim.x) {
    const std::int64_t n = t * batch + row;
    normalize_backward<T>(
        1, width, deviation[n],
        [&](std::int64_t, Place place, float(&d)[N], float(&x)[N]) {
          load_units(d_operand, row, width, place, d);
          load_units(normal, n, width, place, x);
        },
        [&](std::int64_t, Place place, const float(&d)[N]) {
          store_units(d_operand, row, width, place, d);
        });
  }
}

/// Step t of a layer with gain, its input's part (blockIdx.y 0) and the recurrent part: gradients of
/// what was normalized over `normal`, and this step's share of d_gain, [B, 2·G·H], added.
template <class T>
__global__ void __launch_bounds__(kNormalizeThreads) recurrent_sequence_normalize_backward_kernel(
    const __grid_constant__ RecurrentSequenceBackward<T> op, const std::int64_t gates,
    const std::int64_t split, const std::int64_t t, float* d_gain) {
  constexpr int N = kVector<T>;
  const std::int64_t part = blockIdx.y, all = op.h.extent[0] * op.h.extent[1];
  const std::int64_t batch = op.h.extent[1], columns = op.gates.extent[2], width = columns / gates;
  const std::int64_t joint = part == 0 ? gates : gates - split;
  const float* const gain = op.gain.data + part * columns;
  T* const normal = op.normal.data + part * all * columns;
  for (std::int64_t row = blockIdx.x; row < batch; row += gridDim.x) {
    const std::int64_t n = t * batch + row;
    const auto load_both = [&](std::int64_t k, Place place, float(&d)[N], float(&x)[N]) {
      if (k < joint) {
        load_units(op.gates.data, n * gates + k, width, place, d);
      } else {
        load_units(op.saved.data, (k - joint) * all + n, width, place, d);
      }
      load_units(normal, n * gates + k, width, place, x);
    };
    if (d_gain != nullptr) {
      float* const sum = d_gain + (row * 2 + part) * columns;
      for_gates<T>(gates, width, [&](std::int64_t k, Place place) {
        float d[N], x[N], old[N];
        load_both(k, place, d, x);
        load_units(sum, k, width, place, old);
#pragma unroll
        for (int i = 0; i < N; ++i) old[i] += d[i] * x[i];
        store_units(sum, k, width, place, old);
      });
    }
    normalize_backward<T>(
        gates, width, op.deviation.data[part * all + n],
        [&](std::int64_t k, Place place, float(&d)[N], float(&x)[N]) {
          float g[N];
          load_both(k, place, d, x);
          load_units(gain, k, width, place, g);
#pragma unroll
          for (int i = 0; i < N; ++i) d[i] *= g[i];
        },
        [&](std::int64_t k, Place place, const float(&d)[N]) {
          store_units(normal, n * gates + k, width, place, d);
        });
  }
}

}  // namespace carousel
