#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/common/half_turns.h"
#include "kernels/rope/rope.h"

namespace carousel {
namespace {

/// The cosines and sines of a position, one of each for a pair.
template <class A>
struct Turn {
  std::vector<A> cosine, sine;

  explicit Turn(std::int64_t pairs)
      : cosine(static_cast<std::size_t>(pairs)), sine(static_cast<std::size_t>(pairs)) {}

  void set(const HalfTurns& half_turns, std::int64_t position, bool inverse) {
    for (std::size_t i = 0; i < cosine.size(); ++i) {
      const double turns = half_turns(position, static_cast<std::int64_t>(i));
      const double angle = std::numbers::pi * (inverse ? -turns : turns);
      cosine[i] = static_cast<A>(std::cos(angle));
      sine[i] = static_cast<A>(std::sin(angle));
    }
  }
};

/// Turns a head. Pair i is the columns i·stride and i·stride + apart.
template <int stride, bool accumulate, class T>
void turn_head(const T* x, T* y, std::int64_t apart, const Turn<Accumulator<T>>& turn) {
  using A = Accumulator<T>;
  const auto pairs = static_cast<std::int64_t>(turn.cosine.size());
  const A *const cosine = turn.cosine.data(), *const sine = turn.sine.data();
#pragma GCC ivdep
  for (std::int64_t i = 0; i < pairs; ++i) {
    const std::int64_t a = i * stride, b = a + apart;
    const A from_a = static_cast<A>(x[a]), from_b = static_cast<A>(x[b]);
    const A to_a = std::fma(-sine[i], from_b, cosine[i] * from_a);
    const A to_b = std::fma(sine[i], from_a, cosine[i] * from_b);
    y[a] = static_cast<T>(accumulate ? to_a + static_cast<A>(y[a]) : to_a);
    y[b] = static_cast<T>(accumulate ? to_b + static_cast<A>(y[b]) : to_b);
  }
}

/// Columns that no head has.
template <class T>
void pass_on(const Rope<T>& op, const T* x, T* y, std::int64_t begin, std::int64_t end) {
  using A = Accumulator<T>;
  if (op.y.accumulate) {
#pragma GCC ivdep
    for (std::int64_t c = begin; c < end; ++c) {
      y[c] = static_cast<T>(static_cast<A>(x[c]) + static_cast<A>(y[c]));
    }
  } else if (x != y) {
    std::copy(x + begin, x + end, y + begin);
  }
}

template <int stride, bool accumulate, class T>
void turn_row(const Rope<T>& op, std::int64_t row, const Turn<Accumulator<T>>& turn) {
  const std::int64_t width = op.x.extent[2], D = op.head_width, end = op.first + op.heads * D;
  const T* const x = op.x.data + row * width;
  T* const y = op.y.view.data + row * width;
  pass_on(op, x, y, 0, op.first);
  for (std::int64_t c = op.first; c < end; c += D) {
    turn_head<stride, accumulate>(x + c, y + c, stride == 1 ? D / 2 : 1, turn);
  }
  pass_on(op, x, y, end, width);
}

template <int stride, bool accumulate, class T>
void turn_all(const Rope<T>& op) {
  const auto [steps, batch, width] = op.x.extent;
  const HalfTurns half_turns(op.base, op.head_width);
#pragma omp parallel if (steps * batch * width > kCpuChunk)
  {
    Turn<Accumulator<T>> turn(op.head_width / 2);
#pragma omp for schedule(static)
    for (std::int64_t t = 0; t < steps; ++t) {
      for (std::int64_t b = 0; b < batch; ++b) {
        if (b == 0 || op.offset.present()) {
          turn.set(half_turns, (op.offset.present() ? op.offset(b) : 0) + t, op.inverse);
        }
        turn_row<stride, accumulate>(op, t * batch + b, turn);
      }
    }
  }
}

}  // namespace

template <class T>
void Rope<T>::check() const {
  expect_extent("rope: steps of y", y.view.extent[0], x.extent[0]);
  expect_extent("rope: rows of y", y.view.extent[1], x.extent[1]);
  expect_extent("rope: columns of y", y.view.extent[2], x.extent[2]);
  if (offset.present()) expect_extent("rope: length of offset", offset.extent[0], x.extent[1]);
  expect_at_least("rope: first column", first, 0);
  expect_at_least("rope: heads", heads, 0);
  expect_at_least("rope: head width", head_width, 2);
  expect_extent("rope: head width modulo 2", head_width % 2, 0);
  expect_at_least("rope: columns of x", x.extent[2], first + heads * head_width);
  if (!(base > 1)) throw ConfigError(fmt::format("rope: base is {}, expected above 1", base));
}

template <class T>
void Rope<T>::run(const Cpu&) const {
  if (pairs == RopePairs::halves) {
    y.accumulate ? turn_all<1, true>(*this) : turn_all<1, false>(*this);
  } else {
    y.accumulate ? turn_all<2, true>(*this) : turn_all<2, false>(*this);
  }
}

template struct Rope<float>;
template struct Rope<bf16>;
template struct Rope<double>;

}  // namespace carousel
