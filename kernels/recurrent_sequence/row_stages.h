#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/common/cpu_random.h"
#include "kernels/dropout/dropout.h"
#include "kernels/recurrent_sequence/cell_rows.h"

// What the CPU's time loop does to a row of a step besides a cell's pointwise phases.
namespace carousel {

/// The mask of one row at one step: element `first` of options.source is its first unit.
inline void draw_mask(const RecurrentOptions& options, std::uint64_t first, std::int64_t width,
                      std::uint8_t* mask) {
  const std::int32_t zoneout_h = uniform_threshold(options.zoneout_h),
                     zoneout_c = uniform_threshold(options.zoneout_c),
                     candidate = uniform_threshold(options.recurrent_dropout);
  const auto key = options.source.key();
  const std::int64_t step = options.source.step.data[0];
  std::array<PhiloxLanes, 4> words;
  constexpr auto kLanes = static_cast<std::int64_t>(kPhiloxLanes);
  const auto below = [](std::uint32_t word, std::int32_t threshold, int bit) {
    return static_cast<std::int32_t>(word >> 8) < threshold ? bit : 0;
  };
  for (std::int64_t j = 0; j < width; j += kLanes) {
    draw_lanes(key, first + static_cast<std::uint64_t>(j), step, words);
    const auto& [w0, w1, w2, w3] = words;
    const auto count = static_cast<std::size_t>(std::min(kLanes, width - j));
    for (std::size_t i = 0; i < count; ++i) {
      mask[j + static_cast<std::int64_t>(i)] = static_cast<std::uint8_t>(
          below(w0[i], zoneout_h, 1) | below(w1[i], zoneout_c, 2) | below(w2[i], candidate, 4));
    }
  }
}

/// What the units of ĥ of one row are multiplied by for the recurrent product of a call.
template <class Acc>
void draw_recurrent_scale(const RecurrentOptions& options, std::uint64_t first, std::int64_t width,
                          Acc* scale) {
  const std::int32_t threshold = uniform_threshold(options.variational);
  const float kept = dropout_scale(options.variational);
  std::array<PhiloxLanes, 4> words;
  constexpr auto kLanes = static_cast<std::int64_t>(kPhiloxLanes);
  for (std::int64_t j = 0; j < width; j += kLanes) {
    draw_lanes(options.source.key(), first + static_cast<std::uint64_t>(j),
               options.source.step.data[0], words);
    for (std::int64_t i = j; i < std::min(width, j + kLanes); ++i) {
      const std::uint32_t word = words[3][static_cast<std::size_t>(i - j)];
      scale[i] = static_cast<std::int32_t>(word >> 8) < threshold ? 0.0F : kept;
    }
  }
}

/// What is normalized has its mean subtracted and is multiplied by 1 / √(variance + this).
inline constexpr double kNormalizationEpsilon = 1e-5;

/// v becomes gain ∘ x̂, where x̂ = (v − mean) · factor is stored in `normal`, rounded; returns the
/// factor. Without gain only x̂ is stored.
template <class T>
[[gnu::noinline]] Accumulator<T> normalize_row(Accumulator<T>* v, std::int64_t n,
                                               const Accumulator<T>* gain, T* normal) {
  using Acc = Accumulator<T>;
  Acc sum = 0, squares = 0;
#pragma omp simd simdlen(16) reduction(+ : sum)
  for (std::int64_t j = 0; j < n; ++j) sum += v[j];
  const Acc mean = sum / static_cast<Acc>(n);
#pragma omp simd simdlen(16) reduction(+ : squares)
  for (std::int64_t j = 0; j < n; ++j) squares += (v[j] - mean) * (v[j] - mean);
  const Acc factor =
      1 / std::sqrt(squares / static_cast<Acc>(n) + static_cast<Acc>(kNormalizationEpsilon));
  if (gain == nullptr) {
#pragma omp simd simdlen(16)
    for (std::int64_t j = 0; j < n; ++j) cell_rows::store(normal + j, (v[j] - mean) * factor);
  } else {
#pragma omp simd simdlen(16)
    for (std::int64_t j = 0; j < n; ++j) {
      v[j] = gain[j] * cell_rows::store(normal + j, (v[j] - mean) * factor);
    }
  }
  return factor;
}

/// From the gradients d of gain ∘ x̂ those of v: in d, and rounded in `normal` if `stores`. Adds to
/// d_gain. Without gain it counts as 1.
template <class T>
[[gnu::noinline]] void normalize_row_backward(Accumulator<T>* d, std::int64_t n,
                                              Accumulator<T> factor, const Accumulator<T>* gain,
                                              Accumulator<T>* d_gain, T* normal, bool stores) {
  using Acc = Accumulator<T>;
  if (gain != nullptr) {
#pragma omp simd simdlen(16)
    for (std::int64_t j = 0; j < n; ++j) {
      d_gain[j] += d[j] * cell_rows::widened(normal + j);
      d[j] *= gain[j];
    }
  }
  Acc sum = 0, along = 0;
#pragma omp simd simdlen(16) reduction(+ : sum, along)
  for (std::int64_t j = 0; j < n; ++j) {
    sum += d[j];
    along += d[j] * cell_rows::widened(normal + j);
  }
  const Acc mean = sum / static_cast<Acc>(n), slope = along / static_cast<Acc>(n);
#pragma omp simd simdlen(16)
  for (std::int64_t j = 0; j < n; ++j) {
    d[j] = factor * (d[j] - mean - cell_rows::widened(normal + j) * slope);
  }
  if (!stores) return;
#pragma omp simd simdlen(16)
  for (std::int64_t j = 0; j < n; ++j) d[j] = cell_rows::store(normal + j, d[j]);
}

}  // namespace carousel
