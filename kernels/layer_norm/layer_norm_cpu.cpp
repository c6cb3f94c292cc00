#include <fmt/format.h>

#include <array>
#include <cmath>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/reduce/column_sum.h"
#include "kernels/reduce/row_sum.h"

namespace carousel {
namespace {

template <class T>
void normalize_row(const LayerNormForward<T>& op, std::int64_t n,
                   std::vector<Accumulator<T>>& buffer) {
  using Acc = Accumulator<T>;
  const std::int64_t columns = op.x.extent[1];
  const Acc* const x = row_sum::widened(op.x.data + n * columns, columns, buffer);
  const auto one = [](std::int64_t) { return Acc{1}; };
  const Acc mean = row_sum::sum<Acc>(
                       columns, [=](std::int64_t c) { return x[c]; }, one) /
                   static_cast<Acc>(columns);
  const auto centered = [=](std::int64_t c) { return x[c] - mean; };
  const Acc squares = row_sum::sum<Acc>(columns, centered, centered);
  const Acc factor =
      1 / std::sqrt(squares / static_cast<Acc>(columns) + static_cast<Acc>(op.epsilon));
  op.mean(n) = mean;
  op.inverse_deviation(n) = factor;
  const Acc *const gain = op.gain.data, *const bias = op.bias.data;
  T* const y = op.y.data + n * columns;
#pragma GCC ivdep
  for (std::int64_t c = 0; c < columns; ++c) {
    const Acc scaled = (x[c] - mean) * factor * (gain != nullptr ? gain[c] : Acc{1});
    y[c] = static_cast<T>(scaled + (bias != nullptr ? bias[c] : Acc{0}));
  }
}

template <class T>
void normalize_row_backward(const LayerNormBackward<T>& op, std::int64_t n,
                            std::vector<Accumulator<T>>& x_buffer,
                            std::vector<Accumulator<T>>& d_buffer) {
  using Acc = Accumulator<T>;
  const std::int64_t columns = op.x.extent[1];
  const Acc* const x = row_sum::widened(op.x.data + n * columns, columns, x_buffer);
  const T* const d_y = op.d_y.data + n * columns;
  Acc* const d = d_buffer.data();
  const Acc mean = op.mean(n), factor = op.inverse_deviation(n), *const gain = op.gain.data;
#pragma GCC ivdep
  for (std::int64_t c = 0; c < columns; ++c) {
    d[c] = static_cast<Acc>(d_y[c]) * (gain != nullptr ? gain[c] : Acc{1});
  }
  const auto d_of = [=](std::int64_t c) { return d[c]; };
  const Acc shift = row_sum::sum<Acc>(columns, d_of, [](std::int64_t) { return Acc{1}; }) /
                    static_cast<Acc>(columns);
  const Acc along = row_sum::sum<Acc>(columns, d_of, [=](std::int64_t c) { return x[c] - mean; });
  const Acc slope = along * factor * factor / static_cast<Acc>(columns);
  T* const d_x = op.d_x.view.data + n * columns;
  const bool accumulate = op.d_x.accumulate;
#pragma GCC ivdep
  for (std::int64_t c = 0; c < columns; ++c) {
    const Acc gradient = factor * std::fma(mean - x[c], slope, d[c] - shift);
    d_x[c] = static_cast<T>(accumulate ? gradient + static_cast<Acc>(d_x[c]) : gradient);
  }
}

}  // namespace

template <class T>
void LayerNormForward<T>::check() const {
  const auto [rows, columns] = x.extent;
  expect_at_least("layer_norm: columns", columns, 1);
  if (gain.present()) expect_extent("layer_norm: length of gain", gain.extent[0], columns);
  if (bias.present()) expect_extent("layer_norm: length of bias", bias.extent[0], columns);
  expect_extent("layer_norm: rows of y", y.extent[0], rows);
  expect_extent("layer_norm: columns of y", y.extent[1], columns);
  expect_extent("layer_norm: length of mean", mean.extent[0], rows);
  expect_extent("layer_norm: length of inverse_deviation", inverse_deviation.extent[0], rows);
  if (!(epsilon >= 0)) {
    throw ConfigError(fmt::format("layer_norm: epsilon is {}, expected at least 0", epsilon));
  }
}

template <class T>
void LayerNormBackward<T>::check() const {
  const auto [rows, columns] = x.extent;
  expect_at_least("layer_norm: columns", columns, 1);
  if (gain.present()) expect_extent("layer_norm: length of gain", gain.extent[0], columns);
  expect_extent("layer_norm: length of mean", mean.extent[0], rows);
  expect_extent("layer_norm: length of inverse_deviation", inverse_deviation.extent[0], rows);
  expect_extent("layer_norm: rows of d_y", d_y.extent[0], rows);
  expect_extent("layer_norm: columns of d_y", d_y.extent[1], columns);
  if (d_x.present()) {
    expect_extent("layer_norm: rows of d_x", d_x.view.extent[0], rows);
    expect_extent("layer_norm: columns of d_x", d_x.view.extent[1], columns);
  }
  for (const Gradient<Accumulator<T>, 1>& sum : {d_gain, d_bias}) {
    if (!sum.present()) continue;
    expect_extent("layer_norm: length of d_gain or d_bias", sum.view.extent[0], columns);
  }
}

template <class T>
void LayerNormForward<T>::run(const Cpu&) const {
  const auto [rows, columns] = x.extent;
  row_sum::for_rows<Accumulator<T>>(
      rows, columns, [&](std::int64_t n, auto& buffer, auto&) { normalize_row(*this, n, buffer); });
}

template <class T>
void LayerNormBackward<T>::run(const Cpu&) const {
  using Acc = Accumulator<T>;
  const auto rows = x.extent[0], columns = x.extent[1];
  if (d_gain.present() || d_bias.present()) {
    column_sum::sum_columns<2, Acc>(
        rows, columns, {d_gain, d_bias},
        [&](std::int64_t n, std::int64_t first, std::int64_t width, auto& part) {
          const T *const x_row = x.data + n * columns + first, *const d_row =
                                                                   d_y.data + n * columns + first;
          const Acc center = mean(n), factor = inverse_deviation(n);
          Acc *const gain_part = part[0].data(), *const bias_part = part[1].data();
#pragma GCC ivdep
          for (std::int64_t c = 0; c < width; ++c) {
            const Acc d = static_cast<Acc>(d_row[c]);
            gain_part[c] =
                std::fma(d, (static_cast<Acc>(x_row[c]) - center) * factor, gain_part[c]);
            bias_part[c] += d;
          }
        });
  }
  if (!d_x.present()) return;
  row_sum::for_rows<Acc>(rows, columns, [&](std::int64_t n, auto& x_buffer, auto& d_buffer) {
    normalize_row_backward(*this, n, x_buffer, d_buffer);
  });
}

template struct LayerNormForward<float>;
template struct LayerNormForward<bf16>;
template struct LayerNormForward<double>;
template struct LayerNormBackward<float>;
template struct LayerNormBackward<bf16>;
template struct LayerNormBackward<double>;

}  // namespace carousel
