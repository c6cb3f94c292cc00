#include "kernels/common/check.h"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/cross_entropy/row.cuh"

namespace carousel {
namespace {

template <class T, int kRowThreads>
__global__ void __launch_bounds__(row::kBlockThreads<kRowThreads>)
    cross_entropy_forward_kernel(const __grid_constant__ CrossEntropyForward<T> op) {
  auto& shared = dynamic_shared<row::Shared<kRowThreads>>();
  const std::int64_t vocab = op.logits.extent[1];
  row::for_each_row<kRowThreads>(op.logits.extent[0], [&](std::int64_t n) {
    const T* logits = op.logits.data + n * vocab;
    const std::int32_t word = op.target(n);
    const bool known = in_vocabulary(word, vocab);
    const float logit = known ? static_cast<float>(logits[word]) : NAN;
    const row::Sums sums = row::sum_row<kRowThreads, kVector<T>>(
        logits, vocab, logit, op.label_smoothing != 0.0F, shared);
    if (threadIdx.x % kRowThreads != 0) return;  // from the row; the last barrier is behind it
    op.lse(n) = sums.log_sum_exp();
    op.loss(n) = word == kIgnoreTarget ? 0.0F : row::loss(sums, logit, op.label_smoothing, vocab);
  });
}

template <class T, int kRowThreads>
__global__ void __launch_bounds__(row::kBlockThreads<kRowThreads>)
    cross_entropy_backward_kernel(const __grid_constant__ CrossEntropyBackward<T> op) {
  constexpr int N = kVector<T>;
  const std::int64_t vocab = op.logits.extent[1];
  const float everywhere = op.label_smoothing / static_cast<float>(vocab);
  row::for_each_row<kRowThreads>(op.logits.extent[0], [&](std::int64_t n) {
    const T* logits = op.logits.data + n * vocab;
    T* d_logits = op.d_logits.view.data + n * vocab;
    const std::int32_t word = op.target(n);
    const bool ignored = word == kIgnoreTarget;
    if (ignored && op.d_logits.accumulate) return;
    const float scale = in_vocabulary(word, vocab) ? op.d_loss(n) : NAN;
    const float lse = op.lse(n);
    // A piece is read and written by one thread, so the two may be the same memory.
    row::for_each_piece<kRowThreads, N>(logits, vocab, [&](std::int64_t first, std::int64_t count) {
      float x[N], d[N];
      load(logits + first, count, x);
      if (op.d_logits.accumulate) load(d_logits + first, count, d);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float hit = first + i == word ? 1.0F - op.label_smoothing : 0.0F;
        const float value = ignored ? 0.0F : scale * ((expf(x[i] - lse) - hit) - everywhere);
        d[i] = op.d_logits.accumulate ? d[i] + value : value;
      }
      store(d_logits + first, count, d);
    });
  });
}

}  // namespace

template <class T>
void CrossEntropyForward<T>::run(const Cuda& device) const {
  note_row_width<T>("V", logits.extent[1]);
  row::with_row_threads(
      logits.extent[1], [&]<int kRowThreads>(std::integral_constant<int, kRowThreads>) {
        launch(device, row::grid<kRowThreads, row::Shared<kRowThreads>>(logits.extent[0]),
               cross_entropy_forward_kernel<T, kRowThreads>, *this);
      });
}

template <class T>
void CrossEntropyBackward<T>::run(const Cuda& device) const {
  note_row_width<T>("V", logits.extent[1]);
  row::with_row_threads(
      logits.extent[1], [&]<int kRowThreads>(std::integral_constant<int, kRowThreads>) {
        launch(device, row::grid<kRowThreads, row::Shared<kRowThreads>>(logits.extent[0]),
               cross_entropy_backward_kernel<T, kRowThreads>, *this);
      });
}

template void CrossEntropyForward<float>::run(const Cuda&) const;
template void CrossEntropyForward<bf16>::run(const Cuda&) const;
template void CrossEntropyBackward<float>::run(const Cuda&) const;
template void CrossEntropyBackward<bf16>::run(const Cuda&) const;

}  // namespace carousel
