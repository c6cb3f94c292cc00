#include <array>

#include "kernels/activation/math_cpu.h"
#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"

namespace carousel {
namespace {

constexpr std::array kActivations{
    NamedActivation{"gelu", Activation::gelu}, NamedActivation{"gelu_tanh", Activation::gelu_tanh},
    NamedActivation{"relu", Activation::relu}, NamedActivation{"silu", Activation::silu},
    NamedActivation{"tanh", Activation::tanh}};

// (ivdep and not omp simd, which makes arrays of class temporaries and leaves bf16 scalar.)
template <class F, class T>
void forward(const T* x, T* y, std::int64_t count) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) {
    y[i] =
        static_cast<T>(F::template value<activation::CpuMath>(static_cast<Accumulator<T>>(x[i])));
  }
}

template <class F, bool accumulate, class T>
void backward(const T* x, const T* d_y, T* d_x, std::int64_t count) {
  using A = Accumulator<T>;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) {
    const A d =
        F::template slope<activation::CpuMath>(static_cast<A>(x[i])) * static_cast<A>(d_y[i]);
    d_x[i] = static_cast<T>(accumulate ? d + static_cast<A>(d_x[i]) : d);
  }
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
