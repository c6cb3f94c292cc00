#include <fmt/format.h>

#include <cstdint>
#include <limits>

#include "kernels/common/check.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/cross_entropy/row.h"

namespace carousel {
namespace {

// Fewer logits than this are not worth waking the other threads for.
constexpr std::int64_t kParallelLogits = 32768;

template <class A>
constexpr A kNaN = std::numeric_limits<A>::quiet_NaN();

}  // namespace

void check_label_smoothing(const char* op, float epsilon) {
  if (!(epsilon >= 0 && epsilon <= 1)) {  // written so that NaN fails
    throw ConfigError(fmt::format("{}: label smoothing is {}, expected 0 to 1", op, epsilon));
  }
}

template <class T>
void CrossEntropyForward<T>::check() const {
  const auto [rows, vocab] = logits.extent;
  if (vocab == 0) throw ShapeError("cross_entropy: logits have 0 columns, expected at least 1");
  expect_extent("cross_entropy: target rows", target.extent[0], rows);
  expect_extent("cross_entropy: loss rows", loss.extent[0], rows);
  expect_extent("cross_entropy: lse rows", lse.extent[0], rows);
  check_label_smoothing("cross_entropy", label_smoothing);
}

template <class T>
void CrossEntropyBackward<T>::check() const {
  const auto [rows, vocab] = logits.extent;
  if (vocab == 0) throw ShapeError("cross_entropy: logits have 0 columns, expected at least 1");
  expect_extent("cross_entropy: d_loss rows", d_loss.extent[0], rows);
  expect_extent("cross_entropy: target rows", target.extent[0], rows);
  expect_extent("cross_entropy: lse rows", lse.extent[0], rows);
  expect_extent("cross_entropy: d_logits rows", d_logits.view.extent[0], rows);
  expect_extent("cross_entropy: d_logits columns", d_logits.view.extent[1], vocab);
  check_label_smoothing("cross_entropy", label_smoothing);
  if (d_logits.accumulate && rows != 0 && d_logits.view.data == logits.data) {
    throw ShapeError("cross_entropy: d_logits is the memory of logits, expected not to add to it");
  }
}

template <class T>
void CrossEntropyForward<T>::run(const Cpu&) const {
  using A = Accumulator<T>;
  const std::int64_t rows = logits.extent[0], vocab = logits.extent[1];
#pragma omp parallel for schedule(static) if (rows * vocab >= kParallelLogits)
  for (std::int64_t n = 0; n < rows; ++n) {
    const T* x = &logits(n, 0);
    const std::int32_t word = target(n);
    const auto normaliser = row::log_sum_exp<A>(x, vocab);
    lse(n) = normaliser.value();
    if (word == kIgnoreTarget) {
      loss(n) = 0;
    } else if (in_vocabulary(word, vocab)) {
      loss(n) = row::loss(x, vocab, word, static_cast<A>(label_smoothing), normaliser);
    } else {
      loss(n) = kNaN<A>;
    }
  }
}

template <class T>
void CrossEntropyBackward<T>::run(const Cpu&) const {
  using A = Accumulator<T>;
  const std::int64_t rows = logits.extent[0], vocab = logits.extent[1];
  const bool add = d_logits.accumulate;
  const auto smoothing = static_cast<A>(label_smoothing);
  const A everywhere = smoothing / static_cast<A>(vocab);
#pragma omp parallel for schedule(static) if (rows * vocab >= kParallelLogits)
  for (std::int64_t n = 0; n < rows; ++n) {
    const T* x = &logits(n, 0);
    T* d_x = &d_logits.view(n, 0);
    const std::int32_t word = target(n);
    if (!in_vocabulary(word, vocab)) {
      const A value = word == kIgnoreTarget ? A{0} : kNaN<A>;
      if (add && value == 0) continue;
      for (std::int64_t v = 0; v < vocab; ++v) d_x[v] = static_cast<T>(value);
      continue;
    }
    const A scale = d_loss(n), normaliser = lse(n);
    // The target's element apart, from what is there before the row is overwritten: rounding
    // p − ε/V to T before subtracting 1 − ε would cost its digits.
    const A before = add ? static_cast<A>(d_x[word]) : A{0};
    const A p = cpu_exp(static_cast<A>(x[word]) - normaliser);
    const auto gradient = [=](A logit) {
      return scale * (cpu_exp(logit - normaliser) - everywhere);
    };
    if (add) {
      row::transform<A>(x, d_x, vocab, [=](A logit, A old) { return old + gradient(logit); });
    } else {
      row::transform<A>(x, d_x, vocab, [=](A logit, A) { return gradient(logit); });
    }
    d_x[word] = static_cast<T>(before + scale * ((p - (1 - smoothing)) - everywhere));
  }
}

template struct CrossEntropyForward<float>;
template struct CrossEntropyForward<bf16>;
template struct CrossEntropyForward<double>;
template struct CrossEntropyBackward<float>;
template struct CrossEntropyBackward<bf16>;
template struct CrossEntropyBackward<double>;

}  // namespace carousel
