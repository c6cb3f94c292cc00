#include "kernels/activation/math_cpu.h"
#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/gated_activation/gated_activation.h"

namespace carousel {
namespace {

// (ivdep and not omp simd, which makes arrays of class temporaries and leaves bf16 scalar.)
template <class F, class T>
void forward_row(const T* x, T* y, std::int64_t columns) {
  using A = Accumulator<T>;
  const T* const gated = x + columns;
#pragma GCC ivdep
  for (std::int64_t c = 0; c < columns; ++c) {
    const A gate = F::template value<activation::CpuMath>(static_cast<A>(x[c]));
    y[c] = static_cast<T>(gate * static_cast<A>(gated[c]));
  }
}

template <class F, bool accumulate, class T>
void backward_row(const T* x, const T* d_y, T* d_x, std::int64_t columns) {
  using A = Accumulator<T>;
  const T* const gated = x + columns;
  T* const d_gated = d_x + columns;
#pragma GCC ivdep
  for (std::int64_t c = 0; c < columns; ++c) {
    const A in = static_cast<A>(x[c]), d = static_cast<A>(d_y[c]);
    const A first = F::template slope<activation::CpuMath>(in) * static_cast<A>(gated[c]) * d;
    const A second = F::template value<activation::CpuMath>(in) * d;
    d_x[c] = static_cast<T>(accumulate ? first + static_cast<A>(d_x[c]) : first);
    d_gated[c] = static_cast<T>(accumulate ? second + static_cast<A>(d_gated[c]) : second);
  }
}

}  // namespace

template <class T>
void GatedActivationForward<T>::check() const {
  expect_extent("gated_activation: rows of y", y.extent[0], x.extent[0]);
  expect_extent("gated_activation: columns of x", x.extent[1], 2 * y.extent[1]);
}

template <class T>
void GatedActivationBackward<T>::check() const {
  expect_extent("gated_activation: rows of d_y", d_y.extent[0], x.extent[0]);
  expect_extent("gated_activation: columns of x", x.extent[1], 2 * d_y.extent[1]);
  expect_extent("gated_activation: rows of d_x", d_x.view.extent[0], x.extent[0]);
  expect_extent("gated_activation: columns of d_x", d_x.view.extent[1], x.extent[1]);
}

template <class T>
void GatedActivationForward<T>::run(const Cpu&) const {
  const auto [rows, columns] = y.extent;
  activation::visit(kind, [&, rows = rows, columns = columns]<class F>(F) {
#pragma omp parallel for schedule(static) if (rows * columns > kCpuChunk)
    for (std::int64_t n = 0; n < rows; ++n) {
      forward_row<F>(x.data + n * 2 * columns, y.data + n * columns, columns);
    }
  });
}

template <class T>
void GatedActivationBackward<T>::run(const Cpu&) const {
  const auto [rows, columns] = d_y.extent;
  activation::visit(kind, [&, rows = rows, columns = columns]<class F>(F) {
    const auto pass = d_x.accumulate ? backward_row<F, true, T> : backward_row<F, false, T>;
#pragma omp parallel for schedule(static) if (rows * columns > kCpuChunk)
    for (std::int64_t n = 0; n < rows; ++n) {
      const std::int64_t at = n * 2 * columns;
      pass(x.data + at, d_y.data + n * columns, d_x.view.data + at, columns);
    }
  });
}

template struct GatedActivationForward<float>;
template struct GatedActivationForward<bf16>;
template struct GatedActivationForward<double>;
template struct GatedActivationBackward<float>;
template struct GatedActivationBackward<bf16>;
template struct GatedActivationBackward<double>;

}  // namespace carousel
