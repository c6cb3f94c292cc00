#pragma once

#include <limits>

#include "kernels/dropout/dropout.h"
#include "kernels/recurrent_sequence/cuda/places.cuh"

namespace carousel {

/// RecurrentOptions as the kernels of a cell use them: what is off has a value that changes nothing.
struct CellOptions {
  bool draws, zones_h, zones_c;
  float zoneout_h, zoneout_c;  ///< share of the state before where no bit of the mask is set
  float candidate_scale, cell_limit, gradient_limit;
};

/// Whether variational dropout takes units of ĥ.
inline bool drops_h(const RecurrentOptions& options) {
  return options.training && options.variational > 0;
}

inline CellOptions cell_options(const RecurrentOptions& given) {
  const bool drops = given.training && given.recurrent_dropout > 0;
  return {
      .draws = given.draws(),
      .zones_h = given.zoneout_h > 0,
      .zones_c = given.zoneout_c > 0,
      .zoneout_h = given.training ? 0.0F : given.zoneout_h,
      .zoneout_c = given.training ? 0.0F : given.zoneout_c,
      .candidate_scale = drops ? dropout_scale(given.recurrent_dropout) : 1.0F,
      // No comparison with NaN holds, so that an infinite state, too, counts as within.
      .cell_limit = given.cell_clip > 0 ? given.cell_clip : std::numeric_limits<float>::quiet_NaN(),
      .gradient_limit =
          given.gradient_clip > 0 ? given.gradient_clip : std::numeric_limits<float>::infinity()};
}

/// A value within ±limit. NaN stays NaN.
__device__ inline float bounded(float value, float limit) {
  return value > limit ? limit : value < -limit ? -limit : value;
}

/// Draws the mask of the units at `place` of step t.
template <int N, class Op>
__device__ void draw_mask(const Op& op, std::int64_t t, std::int64_t width, Place place) {
  const RecurrentOptions& options = op.options;
  const std::int64_t step = options.source.step.data[0];
  const std::int64_t first = (t * op.h.extent[1] + place.row) * width + place.unit;
  const auto bit = [](std::uint32_t word, float probability, MaskBit of) {
    return uniform(word) < probability ? static_cast<unsigned>(of) : 0U;
  };
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if (i >= place.count) break;
    const auto words = options.source.words(static_cast<std::uint64_t>(first + i), step);
    op.mask.data[first + i] =
        static_cast<std::uint8_t>(bit(words[0], options.zoneout_h, MaskBit::zoneout_h) |
                                  bit(words[1], options.zoneout_c, MaskBit::zoneout_c) |
                                  bit(words[2], options.recurrent_dropout, MaskBit::candidate));
  }
}

/// The masks of the units at `place` of step t; 0 where none are drawn.
template <int N, class Op>
__device__ void load_mask(const Op& op, bool draws, std::int64_t t, std::int64_t width, Place place,
                          unsigned (&to)[N]) {
  const std::int64_t first = (t * op.h.extent[1] + place.row) * width + place.unit;
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = draws && i < place.count ? op.mask.data[first + i] : 0U;
}

/// m of s = m ∘ ŝ + (1 − m) ∘ s: drawn, or its mean.
__device__ inline float zoneout_of(unsigned mask, MaskBit bit, float mean) {
  return (mask & static_cast<unsigned>(bit)) != 0 ? 1.0F : mean;
}

/// What the options give to the units of a step.
template <int N, class Op, class U>
__device__ void set_options(const Op& op, const CellOptions& options, std::int64_t t,
                            std::int64_t width, Place place, U (&u)[N]) {
  unsigned mask[N];
  load_mask(op, options.draws, t, width, place, mask);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const bool dropped = (mask[i] & static_cast<unsigned>(MaskBit::candidate)) != 0;
    u[i].candidate_scale = dropped ? 0.0F : options.candidate_scale;
    u[i].cell_limit = options.cell_limit;
  }
}

/// What variational dropout leaves of a unit of ĥ, or of its gradient: nothing of NaN, too.
__device__ inline float dropped_out(float value, float factor) {
  return factor == 0.0F ? 0.0F : value * factor;
}

/// The units of a row of [B, P], multiplied by their factors, if there are any.
template <int N>
__device__ void drop_out(const float* factors, std::int64_t width, Place place, float (&x)[N]) {
  if (factors == nullptr) return;
  float factor[N];
  load_units(factors, place.row, width, place, factor);
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = dropped_out(x[i], factor[i]);
}

/// The factors of variational dropout: 0, or what makes up for those that are 0.
template <class Op>
__global__ void recurrent_sequence_factors_kernel(const __grid_constant__ Op op, const float scale,
                                                  float* factors) {
  const std::int64_t width = op.h.extent[2];
  const float probability = op.options.variational;
  for_places<float>(op.h.extent[1], width, [&](Place place) {
    const std::int64_t first = place.row * width + place.unit;
    float x[kVector<float>];
#pragma unroll
    for (int i = 0; i < kVector<float>; ++i) {
      const auto words = op.options.source.words(static_cast<std::uint64_t>(first + i),
                                                 op.options.source.step.data[0]);
      x[i] = uniform(words[3]) < probability ? 0.0F : scale;
    }
    store_units(factors, place.row, width, place, x);
  });
}

template <class Op>
void draw_factors(const Cuda& device, const Op& op, float* factors) {
  if (factors == nullptr) return;
  launch(device, grid_of_places<float>(op.h.extent[1], op.h.extent[2]),
         recurrent_sequence_factors_kernel<Op>, op, dropout_scale(op.options.variational), factors);
}

}  // namespace carousel
