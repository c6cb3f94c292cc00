// Where registers of 512 bits exist, the long polynomials here make up for their lower clock.
#if defined(__AVX512F__)
#pragma GCC target("prefer-vector-width=512")
#endif

#include <array>

#include "kernels/activation/math_cpu.h"
#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/cross_entropy/row.h"

namespace carousel {
namespace {

constexpr std::array kActivations{
    NamedActivation{"gelu", Activation::gelu}, NamedActivation{"gelu_tanh", Activation::gelu_tanh},
    NamedActivation{"relu", Activation::relu}, NamedActivation{"silu", Activation::silu},
    NamedActivation{"tanh", Activation::tanh}};

/// write(i, f(x[i])) for each i. bf16 is widened, computed and written in loops of their own: one loop
/// over all that has not registers enough.
// (ivdep and not omp simd, which makes arrays of class temporaries.)
template <class T, class F, class Write>
void for_each(const T* x, std::int64_t count, const F& f, const Write& write) {
  if constexpr (std::is_same_v<T, bf16>) {
    constexpr std::int64_t kBlock = 512;
    alignas(64) float value[kBlock];
    for (std::int64_t first = 0; first < count; first += kBlock) {
      const std::int64_t size = std::min(kBlock, count - first);
#pragma GCC ivdep
      for (std::int64_t i = 0; i < size; ++i) value[i] = row::widened<float>(x[first + i]);
#pragma GCC ivdep
      for (std::int64_t i = 0; i < size; ++i) value[i] = f(value[i]);
#pragma GCC ivdep
      for (std::int64_t i = 0; i < size; ++i) write(first + i, value[i]);
    }
  } else {
#pragma GCC ivdep
    for (std::int64_t i = 0; i < count; ++i) write(i, f(x[i]));
  }
}

template <class F, class T>
void forward(const T* x, T* y, std::int64_t count) {
  using A = Accumulator<T>;
  for_each(
      x, count, [](A v) { return F::template value<activation::CpuMath>(v); },
      [y](std::int64_t i, A value) { row::narrow(value, y[i]); });
}

template <class F, bool accumulate, class T>
void backward(const T* x, const T* d_y, T* d_x, std::int64_t count) {
  using A = Accumulator<T>;
  for_each(
      x, count, [](A v) { return F::template slope<activation::CpuMath>(v); },
      [d_y, d_x](std::int64_t i, A slope) {
        const A d = slope * row::widened<A>(d_y[i]);
        row::narrow(accumulate ? d + row::widened<A>(d_x[i]) : d, d_x[i]);
      });
}

}  // namespace

std::span<const NamedActivation> activations() { return kActivations; }

template <class T>
void ActivationForward<T>::check() const {
  expect_extent("activation: y elements", y.extent[0], x.extent[0]);
}

template <class T>
void ActivationBackward<T>::check() const {
  expect_extent("activation: d_y elements", d_y.extent[0], x.extent[0]);
  expect_extent("activation: d_x elements", d_x.view.extent[0], x.extent[0]);
}

template <class T>
void ActivationForward<T>::run(const Cpu&) const {
  activation::visit(kind, [this]<class F>(F) {
    in_chunks(x.extent[0], [this](std::int64_t first, std::int64_t count) {
      forward<F>(x.data + first, y.data + first, count);
    });
  });
}

template <class T>
void ActivationBackward<T>::run(const Cpu&) const {
  activation::visit(kind, [this]<class F>(F) {
    in_chunks(x.extent[0], [this](std::int64_t first, std::int64_t count) {
      const auto pass = d_x.accumulate ? backward<F, true, T> : backward<F, false, T>;
      pass(x.data + first, d_y.data + first, d_x.view.data + first, count);
    });
  });
}

template struct ActivationForward<float>;
template struct ActivationForward<bf16>;
template struct ActivationForward<double>;
template struct ActivationBackward<float>;
template struct ActivationBackward<bf16>;
template struct ActivationBackward<double>;

}  // namespace carousel
