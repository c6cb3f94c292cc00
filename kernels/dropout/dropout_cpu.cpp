#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/common/check.h"
#include "kernels/common/cpu_random.h"
#include "kernels/dropout/dropout.h"

namespace carousel {
namespace {

// Elements per task, if it has rows enough: any division gives the same bits.
constexpr std::int64_t kChunk = 32'768;

// Columns of a task of several rows: their factors stay in the first-level cache while rows stream
// past. With one row, drawing the next factors hides the time that a few elements take to come.
constexpr std::int64_t kColumns = 1024;

constexpr std::int64_t kElements = 4 * kPhiloxLanes;

/// What the elements first … first + kElements − 1 are multiplied by.
struct Factors {
  std::array<std::uint32_t, 2> key;
  std::int64_t step;
  std::int32_t threshold;  ///< kept if word >> 8 ≥ threshold, which says uniform(word) ≥ p
  float scale;

  Factors(const RandomSource& source, float drop_probability)
      : key(source.key()),
        step(*source.step.data),
        threshold(uniform_threshold(drop_probability)),
        scale(dropout_scale(drop_probability)) {}

  void draw(std::int64_t first, float* factor) const {
    std::array<PhiloxLanes, 4> words;
    draw_lanes(key, static_cast<std::uint64_t>(first) / 4, step, words);
    const std::int32_t bound = threshold;  // locals, for the loop to become vectors
    const float kept = scale;
    const auto keep = [=](std::uint32_t word) {
      return static_cast<std::int32_t>(word >> 8) >= bound ? kept : 0.0F;
    };
#pragma omp simd
    for (std::size_t i = 0; i < kPhiloxLanes; ++i) {
      factor[4 * i] = keep(words[0][i]);
      factor[4 * i + 1] = keep(words[1][i]);
      factor[4 * i + 2] = keep(words[2][i]);
      factor[4 * i + 3] = keep(words[3][i]);
    }
  }
};

/// to[n] = from[n]·factor[n], or that added to to[n]. `from` may be `to`. (ivdep and not omp simd,
/// which makes arrays of class temporaries and leaves bf16 scalar.)
template <class T>
void apply(const T* from, T* to, const float* factor, bool accumulate, std::int64_t count) {
  using A = Accumulator<T>;
  if (accumulate) {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) {
      to[i] = static_cast<T>(
          std::fma(static_cast<A>(from[i]), static_cast<A>(factor[i]), static_cast<A>(to[i])));
    }
  } else {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) {
      to[i] = static_cast<T>(static_cast<A>(from[i]) * static_cast<A>(factor[i]));
    }
  }
}

/// The elements are rows of one period each. A task has some columns of several rows, draws their
/// factors once and applies them row by row.
template <class T>
void dropout(View<const T, 1> from, const Gradient<T, 1>& to, const Factors& factors,
             std::int64_t period) {
  const std::int64_t size = from.extent[0], columns = period == 0 ? size : period;
  if (size == 0) return;
  const std::int64_t rows = size / columns;
  const std::int64_t width = std::min(columns, rows == 1 ? kElements : kColumns);
  const std::int64_t rows_each = std::max<std::int64_t>(1, kChunk / width);
#pragma omp parallel for collapse(2) schedule(static) if (size > kChunk)
  for (std::int64_t row = 0; row < rows; row += rows_each) {
    for (std::int64_t column = 0; column < columns; column += width) {
      const std::int64_t count = std::min(width, columns - column);
      alignas(64) std::array<float, kColumns> factor;
      if (factors.threshold == 0) factor.fill(1.0F);
      for (std::int64_t i = 0; i < count && factors.threshold != 0; i += kElements) {
        factors.draw(column + i, factor.data() + i);
      }
      for (std::int64_t r = row; r < std::min(rows, row + rows_each); ++r) {
        const std::int64_t n = r * columns + column;
        apply(from.data + n, to.view.data + n, factor.data(), to.accumulate, count);
      }
    }
  }
}

void check_options(std::int64_t size, std::int64_t period, float drop_probability) {
  if (period < 0 || (period > 0 && size % period != 0)) {
    throw ShapeError(
        fmt::format("dropout: period is {}, expected a divisor of {} elements", period, size));
  }
  if (!(drop_probability >= 0.0F && drop_probability <= 1.0F)) {
    throw ConfigError(
        fmt::format("dropout: drop_probability is {}, expected 0 to 1", drop_probability));
  }
}

}  // namespace

template <class T>
void DropoutForward<T>::check() const {
  expect_extent("dropout: y elements", y.extent[0], x.extent[0]);
  expect_present("dropout: source.step", source.step.present());
  check_options(x.extent[0], period, drop_probability);
}

template <class T>
void DropoutBackward<T>::check() const {
  expect_extent("dropout: d_x elements", d_x.view.extent[0], d_y.extent[0]);
  expect_present("dropout: source.step", source.step.present());
  check_options(d_y.extent[0], period, drop_probability);
}

template <class T>
void DropoutForward<T>::run(const Cpu&) const {
  dropout(x, Gradient<T, 1>{y}, Factors(source, drop_probability), period);
}

template <class T>
void DropoutBackward<T>::run(const Cpu&) const {
  dropout(d_y, d_x, Factors(source, drop_probability), period);
}

template struct DropoutForward<float>;
template struct DropoutForward<bf16>;
template struct DropoutForward<double>;
template struct DropoutBackward<float>;
template struct DropoutBackward<bf16>;
template struct DropoutBackward<double>;

}  // namespace carousel
