#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/reduce/column_sum.h"
#include "kernels/reduce/row_sum.h"
#include "kernels/rms_norm/rms_norm.h"

namespace carousel {
namespace {

/// The row that is normalized.
template <class T>
const T* row_of(const RmsNormForward<T>& op, std::int64_t n) {
  using Acc = Accumulator<T>;
  const std::int64_t columns = op.x.extent[1];
  const T* const x = op.x.data + n * columns;
  if (!op.added.present()) return x;
  const T* const added = op.added.data + n * columns;
  T* const sum = op.sum.data + n * columns;
#pragma GCC ivdep
  for (std::int64_t c = 0; c < columns; ++c) {
    sum[c] = static_cast<T>(static_cast<Acc>(x[c]) + static_cast<Acc>(added[c]));
  }
  return sum;
}

template <class T>
void normalize_row(const RmsNormForward<T>& op, std::int64_t n,
                   std::vector<Accumulator<T>>& buffer) {
  using Acc = Accumulator<T>;
  const std::int64_t columns = op.x.extent[1];
  const Acc* const x = row_sum::widened(row_of(op, n), columns, buffer);
  const auto at = [=](std::int64_t c) { return x[c]; };
  const Acc square = row_sum::sum<Acc>(columns, at, at) / static_cast<Acc>(columns);
  const Acc factor = 1 / std::sqrt(square + static_cast<Acc>(op.epsilon));
  op.inverse_rms(n) = factor;
  const Acc* const gain = op.gain.data;
  T* const y = op.y.data + n * columns;
#pragma GCC ivdep
  for (std::int64_t c = 0; c < columns; ++c) {
    y[c] = static_cast<T>(x[c] * factor * (gain != nullptr ? gain[c] : Acc{1}));
  }
}

template <class T>
void normalize_row_backward(const RmsNormBackward<T>& op, std::int64_t n,
                            std::vector<Accumulator<T>>& x_buffer,
                            std::vector<Accumulator<T>>& d_buffer) {
  using Acc = Accumulator<T>;
  const std::int64_t columns = op.x.extent[1];
  const Acc* const x = row_sum::widened(op.x.data + n * columns, columns, x_buffer);
  const T* const d_y = op.d_y.data + n * columns;
  Acc* const d = d_buffer.data();
  const Acc factor = op.inverse_rms(n), *const gain = op.gain.data;
#pragma GCC ivdep
  for (std::int64_t c = 0; c < columns; ++c) {
    d[c] = static_cast<Acc>(d_y[c]) * (gain != nullptr ? gain[c] : Acc{1});
  }
  const Acc along = row_sum::sum<Acc>(
      columns, [=](std::int64_t c) { return d[c]; }, [=](std::int64_t c) { return x[c]; });
  const Acc slope = along * factor * factor / static_cast<Acc>(columns);
  T* const d_x = op.d_x.view.data + n * columns;
  const bool accumulate = op.d_x.accumulate;
#pragma GCC ivdep
  for (std::int64_t c = 0; c < columns; ++c) {
    const Acc gradient = factor * std::fma(-x[c], slope, d[c]);
    d_x[c] = static_cast<T>(accumulate ? gradient + static_cast<Acc>(d_x[c]) : gradient);
  }
}

}  // namespace

template <class T>
void RmsNormForward<T>::check() const {
  const auto [rows, columns] = x.extent;
  expect_at_least("rms_norm: columns", columns, 1);
  if (gain.present()) expect_extent("rms_norm: length of gain", gain.extent[0], columns);
  if (added.present() || sum.present()) {
    expect_extent("rms_norm: rows of added", added.extent[0], rows);
    expect_extent("rms_norm: columns of added", added.extent[1], columns);
    expect_extent("rms_norm: rows of sum", sum.extent[0], rows);
    expect_extent("rms_norm: columns of sum", sum.extent[1], columns);
  }
  expect_extent("rms_norm: rows of y", y.extent[0], rows);
  expect_extent("rms_norm: columns of y", y.extent[1], columns);
  expect_extent("rms_norm: length of inverse_rms", inverse_rms.extent[0], rows);
  if (!(epsilon >= 0)) {
    throw ConfigError(fmt::format("rms_norm: epsilon is {}, expected at least 0", epsilon));
  }
}

template <class T>
void RmsNormBackward<T>::check() const {
  const auto [rows, columns] = x.extent;
  expect_at_least("rms_norm: columns", columns, 1);
  if (gain.present()) expect_extent("rms_norm: length of gain", gain.extent[0], columns);
  expect_extent("rms_norm: length of inverse_rms", inverse_rms.extent[0], rows);
  expect_extent("rms_norm: rows of d_y", d_y.extent[0], rows);
  expect_extent("rms_norm: columns of d_y", d_y.extent[1], columns);
  if (d_x.present()) {
    expect_extent("rms_norm: rows of d_x", d_x.view.extent[0], rows);
    expect_extent("rms_norm: columns of d_x", d_x.view.extent[1], columns);
  }
  if (d_gain.present()) {
    expect_extent("rms_norm: length of d_gain", d_gain.view.extent[0], columns);
  }
}

template <class T>
void RmsNormForward<T>::run(const Cpu&) const {
  row_sum::for_rows<Accumulator<T>>(
      x.extent[0], x.extent[1],
      [&](std::int64_t n, auto& buffer, auto&) { normalize_row(*this, n, buffer); });
}

template <class T>
void RmsNormBackward<T>::run(const Cpu&) const {
  using Acc = Accumulator<T>;
  const auto rows = x.extent[0], columns = x.extent[1];
  if (d_gain.present()) {
    column_sum::sum_columns<1, Acc>(
        rows, columns, {d_gain},
        [&](std::int64_t n, std::int64_t first, std::int64_t width, auto& part) {
          const std::int64_t at = n * columns + first;
          const T *const x_row = x.data + at, *const d_row = d_y.data + at;
          const Acc factor = inverse_rms(n);
          Acc* const sum = part[0].data();
#pragma GCC ivdep
          for (std::int64_t c = 0; c < width; ++c) {
            sum[c] =
                std::fma(static_cast<Acc>(d_row[c]), static_cast<Acc>(x_row[c]) * factor, sum[c]);
          }
        });
  }
  if (!d_x.present()) return;
  row_sum::for_rows<Acc>(rows, columns, [&](std::int64_t n, auto& x_buffer, auto& d_buffer) {
    normalize_row_backward(*this, n, x_buffer, d_buffer);
  });
}

template struct RmsNormForward<float>;
template struct RmsNormForward<bf16>;
template struct RmsNormForward<double>;
template struct RmsNormBackward<float>;
template struct RmsNormBackward<bf16>;
template struct RmsNormBackward<double>;

}  // namespace carousel
