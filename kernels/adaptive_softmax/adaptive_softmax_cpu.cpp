#include <algorithm>
#include <type_traits>

#include "kernels/adaptive_softmax/route.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/cross_entropy/row.h"

namespace carousel {
namespace {

/// to += from, each sum in A.
template <class T>
void add_row(const T* from, T* to, std::int64_t size) {
  using A = Accumulator<T>;
  row::transform<A>(from, to, size, [](A x, A before) { return before + x; });
}

/// A row's log softmax: subtract both parts in turn, so that the large ones cancel before rounding.
template <class A>
struct LogSoftmax {
  A max, log_sum;
  template <class T>
  LogSoftmax(const T* logits, std::int64_t size) {
    const auto normaliser = row::log_sum_exp<A>(logits, size);
    max = normaliser.max;
    log_sum = std::log(normaliser.sum);
  }
  A operator()(A logit) const { return (logit - max) - log_sum; }
};

}  // namespace

template <class A>
void AdaptiveRoute<A>::run(const Cpu&) const {
  const std::int64_t rows = target.extent[0];
  std::int64_t known = 0;
  for (std::int64_t n = 0; n < rows; ++n) {
    head_target(n) = adaptive_softmax::head_target(cutoffs, target(n));
    known += target(n) == kIgnoreTarget ? 0 : 1;
  }
  counted(0) = static_cast<A>(known);
  for (int k = 0; k < cutoffs.clusters; ++k) {
    std::int32_t m = 0;
    for (std::int64_t n = 0; n < rows; ++n) {
      if (cutoffs.has(k, target(n))) {
        adaptive_softmax::put(*this, k, n, m++);
      } else {
        place(k, n) = -1;
      }
    }
    count(k) = m;
    for (std::int64_t rest = m; rest < rows; ++rest) adaptive_softmax::put_none(*this, k, rest);
  }
}

template <class T>
void SelectRows<T>::run(const Cpu&) const {
  const auto [rows, width] = to.view.extent;
#pragma omp parallel for schedule(static) if (rows * width > kCpuChunk)
  for (std::int64_t n = 0; n < rows; ++n) {
    T* const out = to.view.data + n * width;
    const bool exists = row(n) >= 0 && row(n) < from.extent[0];
    const T* const in = from.data + (exists ? row(n) * width : 0);
    if (to.accumulate) {
      if (exists) add_row(in, out, width);
    } else if (exists) {
      std::copy_n(in, width, out);
    } else {
      std::fill_n(out, width, T{});
    }
  }
}

template <class T>
void AdaptiveLogProbabilities<T>::run(const Cpu&) const {
  using A = Accumulator<T>;
  const std::int64_t rows = head.extent[0], width = cutoffs.head(), vocab = cutoffs.vocabulary();
  const std::int64_t first = tail.present() ? cutoffs.first(cluster) : 0;
  const std::int64_t words = tail.present() ? cutoffs.words(cluster) : cutoffs.shortlist();
#pragma omp parallel for schedule(static) if (rows * (width + words) > kCpuChunk)
  for (std::int64_t b = 0; b < rows; ++b) {
    const T* const logits = head.data + b * width;
    A* const out = y.data + b * vocab + first;
    const LogSoftmax<A> of_head(logits, width);
    if (!tail.present()) {
      row::transform<A>(logits, out, words, [&](A x, A) { return of_head(x); });
      continue;
    }
    const T* const own = tail.data + b * words;
    const A given = of_head(static_cast<A>(logits[cutoffs.shortlist() + cluster]));
    const LogSoftmax<A> of_tail(own, words);
    row::transform<A>(own, out, words, [&](A x, A) { return given + of_tail(x); });
  }
}

template void AdaptiveRoute<float>::run(const Cpu&) const;
template void AdaptiveRoute<double>::run(const Cpu&) const;
template void SelectRows<float>::run(const Cpu&) const;
template void SelectRows<bf16>::run(const Cpu&) const;
template void SelectRows<double>::run(const Cpu&) const;
template void AdaptiveLogProbabilities<float>::run(const Cpu&) const;
template void AdaptiveLogProbabilities<bf16>::run(const Cpu&) const;
template void AdaptiveLogProbabilities<double>::run(const Cpu&) const;

}  // namespace carousel
