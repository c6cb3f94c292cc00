#pragma once

#include <cuda_runtime.h>

#include <array>
#include <cstdint>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/recurrent_sequence/recurrent_sequence.h"

namespace carousel {

// A thread takes one vector of units of one row, all gates of it. A step is small (32 rows of 256
// bf16 units are 1,024 threads), so blocks are small too, to reach as many processors as can be.
inline constexpr unsigned kCellThreads = 64;

struct DeviceCellMath {
  template <class R>
  static constexpr R sigmoid(R x) {
    return 1.0F / (1.0F + expf(-x));
  }
  template <class R>
  static constexpr R tanh(R x) {
    return tanhf(x);
  }
  template <class R>
  static constexpr R exp(R x) {
    return expf(x);
  }
  template <class R>
  static constexpr R log_sigmoid(R x) {
    return fminf(x, 0.0F) - log1pf(expf(-fabsf(x)));
  }
};

/// The units a thread works on: `count` from `unit` on, of which a vector at most.
struct Place {
  std::int64_t row, unit, count;
};

/// Calls f(place) for this thread's share of `rows` rows of `width` units, a vector of T each.
template <class T, class F>
__device__ void for_places(std::int64_t rows, std::int64_t width, const F& f) {
  const std::int64_t vectors = (width + kVector<T> - 1) / kVector<T>;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < rows * vectors; i += stride) {
    const std::int64_t unit = i % vectors * kVector<T>;
    f(Place{i / vectors, unit, width - unit});
  }
}

template <class T>
Grid grid_of_places(std::int64_t rows, std::int64_t width) {
  const std::int64_t vectors = (width + kVector<T> - 1) / kVector<T>;
  return {.blocks = blocks_for(rows * vectors, kCellThreads), .threads = kCellThreads};
}

/// The units at `place` of a matrix's row `row`, or zeros where the matrix is absent.
template <int N, class T>
__device__ void load_units(const T* matrix, std::int64_t row, std::int64_t width, Place place,
                           float (&to)[N]) {
  if (matrix != nullptr) return load<N>(matrix + row * width + place.unit, place.count, to);
#pragma unroll
  for (float& x : to) x = 0.0F;
}

template <int N, class T>
__device__ void store_units(T* matrix, std::int64_t row, std::int64_t width, Place place,
                            const float (&from)[N]) {
  store<N>(matrix + row * width + place.unit, place.count, from);
}

/// Of one row: its steps [begin, end), and the order in which they are taken.
struct RowSteps {
  std::int64_t row, begin, end;
  bool reverse;

  template <class Op>
  __device__ RowSteps(const Op& op, std::int64_t of_row)
      : row(of_row), begin(0), end(op.h.extent[0]), reverse(op.reverse) {
    const std::int64_t steps = end;
    const auto clamped = [steps](std::int64_t t) { return t < 0 ? 0 : t > steps ? steps : t; };
    if (op.rows.begin.present()) begin = clamped(op.rows.begin.data[row]);
    if (op.rows.end.present()) end = clamped(op.rows.end.data[row]);
  }
  __device__ bool has(std::int64_t t) const { return begin <= t && t < end; }
  __device__ bool is_empty() const { return begin >= end; }
  __device__ std::int64_t first() const { return reverse ? end - 1 : begin; }
  __device__ std::int64_t last() const { return reverse ? begin : end - 1; }
  __device__ std::int64_t before(std::int64_t t) const { return reverse ? t + 1 : t - 1; }
  __device__ std::int64_t after(std::int64_t t) const { return reverse ? t - 1 : t + 1; }

  /// Whether a reset lies between step t, which the row has, and the one before it.
  template <class Op>
  __device__ bool is_cut(const Op& op, std::int64_t t) const {
    const std::int64_t at = reverse ? t + 1 : t;
    return at < end && op.reset.present() && op.reset.data[at * op.h.extent[1] + row] != 0;
  }
};

/// Whether a row without a step before begins at `start` for want of an initial state of its own.
template <class Op, class S>
__device__ bool lacks_initial(const Op& op, const View<const S, 2>& initial, std::int64_t row) {
  return !initial.present() || (op.carried.present() && op.carried.data[row] == 0);
}

/// Whether step t, which the row has, begins at `start`.
template <class Op, class S>
__device__ bool begins_at_start(const Op& op, const View<const S, 2>& initial,
                                const RowSteps& steps, std::int64_t t) {
  return steps.is_cut(op, t) || (t == steps.first() && lacks_initial(op, initial, steps.row));
}

/// Whether there is an ĥ before step t.
template <class Op>
__device__ bool has_h_before(const Op& op, const RowSteps& steps, std::int64_t t) {
  return op.start[0].present() || !begins_at_start(op, op.h0, steps, t);
}

/// The units of `start`, as a state that is stored as S.
template <class S, int N>
__device__ void load_start(const View<const float, 1>& start, Place place, float (&to)[N]) {
  load_units(start.data, 0, start.extent[0], place, to);
#pragma unroll
  for (float& x : to) x = static_cast<float>(static_cast<S>(x));
}

/// The units of a state before the row's first step, or of one without steps.
template <class Op, class S, int N>
__device__ void load_initial(const Op& op, const View<const S, 2>& initial,
                             const View<const float, 1>& start, Place place, float (&to)[N]) {
  if (lacks_initial(op, initial, place.row)) return load_start<S>(start, place, to);
  load_units(initial.data, place.row, initial.extent[1], place, to);
}

/// The units of a state before step t: of the sequence, of the initial state, or of `start`.
template <class Op, class Sequence, class S, int N>
__device__ void load_before(const Op& op, const Sequence& sequence, const View<const S, 2>& initial,
                            const View<const float, 1>& start, const RowSteps& steps,
                            std::int64_t t, Place place, float (&to)[N]) {
  if (steps.is_cut(op, t)) return load_start<S>(start, place, to);
  if (t == steps.first()) return load_initial(op, initial, start, place, to);
  load_units(sequence.data, steps.before(t) * op.h.extent[1] + place.row, sequence.extent[2], place,
             to);
}

}  // namespace carousel
