#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/common/half_turns.h"
#include "kernels/position_embedding/position_embedding.h"

namespace carousel {
namespace {

/// What is added at a position.
template <class T>
void set_row(const PositionEmbeddingForward<T>& op, const HalfTurns& half_turns,
             std::int64_t position, std::vector<Accumulator<T>>& row) {
  using A = Accumulator<T>;
  const auto width = static_cast<std::int64_t>(row.size());
  A* const to = row.data();
  if (!op.table.present()) {
    for (std::int64_t e = 0; e < width; ++e) {
      const double angle = std::numbers::pi * half_turns(position, e / 2);
      to[e] = static_cast<A>(e % 2 == 0 ? std::sin(angle) : std::cos(angle));
    }
  } else if (position < 0 || position >= op.table.extent[0]) {
    std::fill(row.begin(), row.end(), std::numeric_limits<A>::quiet_NaN());
  } else {
    const T* const from = op.table.data + position * width;
#pragma GCC ivdep
    for (std::int64_t e = 0; e < width; ++e) to[e] = static_cast<A>(from[e]);
  }
}

template <class T>
void add_row(const T* x, Accumulator<T> scale, const Accumulator<T>* row, T* y,
             std::int64_t width) {
  using A = Accumulator<T>;
#pragma GCC ivdep
  for (std::int64_t e = 0; e < width; ++e) {
    y[e] = static_cast<T>(std::fma(scale, static_cast<A>(x[e]), row[e]));
  }
}

/// to (+)= scale·from
template <class T>
void scale_numbers(const T* from, Accumulator<T> scale, bool accumulate, T* to,
                   std::int64_t count) {
  using A = Accumulator<T>;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) {
    const A before = accumulate ? static_cast<A>(to[i]) : A{0};
    to[i] = static_cast<T>(std::fma(scale, static_cast<A>(from[i]), before));
  }
}

template <class T>
void sum_rows(const PositionEmbeddingBackward<T>& op, std::int64_t position) {
  using A = Accumulator<T>;
  const auto [steps, batch, width] = op.d_y.extent;
  A* const to = op.d_table.view.data + position * width;
  if (!op.d_table.accumulate) std::fill(to, to + width, A{0});
  if (position >= steps) return;
  for (std::int64_t b = 0; b < batch; ++b) {
    const T* const from = op.d_y.data + (position * batch + b) * width;
#pragma GCC ivdep
    for (std::int64_t e = 0; e < width; ++e) to[e] += static_cast<A>(from[e]);
  }
}

}  // namespace

template <class T>
void PositionEmbeddingForward<T>::check() const {
  expect_extent("position_embedding: steps of y", y.extent[0], x.extent[0]);
  expect_extent("position_embedding: rows of y", y.extent[1], x.extent[1]);
  expect_extent("position_embedding: columns of y", y.extent[2], x.extent[2]);
  if (table.present()) {
    expect_extent("position_embedding: columns of table", table.extent[1], x.extent[2]);
  }
  if (offset.present()) {
    expect_extent("position_embedding: length of offset", offset.extent[0], x.extent[1]);
  }
}

template <class T>
void PositionEmbeddingBackward<T>::check() const {
  if (d_x.present()) {
    expect_extent("position_embedding: steps of d_x", d_x.view.extent[0], d_y.extent[0]);
    expect_extent("position_embedding: rows of d_x", d_x.view.extent[1], d_y.extent[1]);
    expect_extent("position_embedding: columns of d_x", d_x.view.extent[2], d_y.extent[2]);
  }
  if (!d_table.present()) return;
  expect_at_least("position_embedding: rows of d_table", d_table.view.extent[0], d_y.extent[0]);
  expect_extent("position_embedding: columns of d_table", d_table.view.extent[1], d_y.extent[2]);
}

template <class T>
void PositionEmbeddingForward<T>::run(const Cpu&) const {
  using A = Accumulator<T>;
  const auto [steps, batch, width] = x.extent;
  const HalfTurns half_turns(10'000, std::max<std::int64_t>(1, width));
#pragma omp parallel if (steps * batch * width > kCpuChunk)
  {
    std::vector<A> row(static_cast<std::size_t>(width));
#pragma omp for schedule(static)
    for (std::int64_t t = 0; t < steps; ++t) {
      for (std::int64_t b = 0; b < batch; ++b) {
        if (b == 0 || offset.present()) {
          set_row(*this, half_turns, (offset.present() ? offset(b) : 0) + t, row);
        }
        const std::int64_t at = (t * batch + b) * width;
        add_row(x.data + at, static_cast<A>(scale), row.data(), y.data + at, width);
      }
    }
  }
}

template <class T>
void PositionEmbeddingBackward<T>::run(const Cpu&) const {
  if (d_table.present()) {
#pragma omp parallel for schedule(static) if (d_y.size() > kCpuChunk)
    for (std::int64_t position = 0; position < d_table.view.extent[0]; ++position) {
      sum_rows(*this, position);
    }
  }
  if (!d_x.present()) return;
  in_chunks(d_y.size(), [this](std::int64_t first, std::int64_t count) {
    scale_numbers(d_y.data + first, static_cast<Accumulator<T>>(scale), d_x.accumulate,
                  d_x.view.data + first, count);
  });
}

void AdvancePositions::check() const {
  expect_extent("advance_positions: length of after", after.extent[0], before.extent[0]);
  if (length.present()) {
    expect_extent("advance_positions: length of length", length.extent[0], before.extent[0]);
  }
  expect_at_least("advance_positions: steps", steps, 0);
}

void AdvancePositions::run(const Cpu&) const {
  for (std::int64_t b = 0; b < before.extent[0]; ++b) after(b) = moved(b);
}

template struct PositionEmbeddingForward<float>;
template struct PositionEmbeddingForward<bf16>;
template struct PositionEmbeddingForward<double>;
template struct PositionEmbeddingBackward<float>;
template struct PositionEmbeddingBackward<bf16>;
template struct PositionEmbeddingBackward<double>;

}  // namespace carousel
