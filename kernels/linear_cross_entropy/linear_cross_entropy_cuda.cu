#include <algorithm>
#include <type_traits>

#include "kernels/common/cuda/shared.cuh"
#include "kernels/cross_entropy/row.cuh"
#include "kernels/linear_cross_entropy/chunk.h"

namespace carousel {
namespace {

constexpr int kThreads = 1024;

using linear_cross_entropy::Chunk;
using linear_cross_entropy::RowState;

struct CountShared {
  BlockReduceStorage<std::int32_t, kThreads> count;
};

// One block: targets are few beside logits, and the count must be there before the first gradient.
template <class T>
__global__ void __launch_bounds__(kThreads)
    linear_cross_entropy_count_kernel(const __grid_constant__ LinearCrossEntropy<T> op) {
  auto& shared = dynamic_shared<CountShared>();
  const std::int64_t rows = op.target.extent[0];
  std::int32_t count = 0;
  for (std::int64_t n = threadIdx.x; n < rows; n += kThreads) {
    count += op.target(n) == kIgnoreTarget ? 0 : 1;
  }
  count = block_reduce<kThreads>(count, Sum{}, shared.count);
  if (threadIdx.x == 0) op.count(0) = count;
}

struct MeanShared {
  BlockReduceStorage<double, kThreads> sum;
};

// One block, in double: the sum over an epoch's longest window keeps float's digits.
template <class T>
__global__ void __launch_bounds__(kThreads)
    linear_cross_entropy_mean_kernel(const __grid_constant__ LinearCrossEntropy<T> op) {
  auto& shared = dynamic_shared<MeanShared>();
  const std::int64_t rows = op.loss.extent[0];
  double sum = 0;
  for (std::int64_t n = threadIdx.x; n < rows; n += kThreads) {
    sum += linear_cross_entropy::weighted_loss(op, n);
  }
  sum = block_reduce<kThreads>(sum, Sum{}, shared.sum);
  if (threadIdx.x != 0) return;
  const double divisor = linear_cross_entropy::denominator(op, op.count(0));
  op.mean_loss(0) = divisor == 0 ? 0.0F : static_cast<float>(sum / divisor);
}

// One thread set per row of the chunk, as row.cuh has it. The last words' launch writes the losses.
template <class T, int kRowThreads>
__global__ void __launch_bounds__(row::kBlockThreads<kRowThreads>)
    linear_cross_entropy_add_kernel(const __grid_constant__ LinearCrossEntropy<T> op,
                                    const __grid_constant__ Chunk<T> chunk) {
  auto& shared = dynamic_shared<row::Shared<kRowThreads>>();
  const std::int64_t vocab = op.weight.extent[0];
  const float smoothing = op.label_smoothing;
  const bool begins = chunk.first_word == 0, ends = chunk.first_word + chunk.words == vocab;
  row::for_each_row<kRowThreads>(chunk.rows, [&](std::int64_t n) {
    const float* logits = chunk.scratch.logits + n * chunk.words;
    RowState<float>& state = chunk.scratch.state[n];
    const float from = !begins ? state.from : isfinite(logits[0]) ? logits[0] : 0.0F;
    // Its reduction also keeps the new state behind every read of the old one.
    const row::Sums sums = row::sum_row<kRowThreads, kVector<float>>(logits, chunk.words, from,
                                                                     smoothing != 0.0F, shared);
    if (threadIdx.x % kRowThreads != 0) return;  // from the row; no barrier follows
    const std::int32_t target = op.target(chunk.first_row + n);
    const std::int64_t word = target - chunk.first_word;
    RowState<float> now{sums.max, sums.sum, from, sums.differences, NAN};
    if (!begins) {
      const row::Sums all = row::Merge{}({state.max, state.sum, state.differences}, sums);
      now = {all.max, all.sum, from, all.differences, state.target};
    }
    if (word >= 0 && word < chunk.words) now.target = logits[word];
    state = now;
    if (!ends) return;
    const bool ignored = target == kIgnoreTarget, known = in_vocabulary(target, vocab);
    const row::Sums whole{now.max, now.sum, now.target_differences(vocab)};
    const float loss = row::loss(whole, now.target, smoothing, vocab);
    op.loss(chunk.first_row + n) = ignored ? 0.0F : known ? loss : NAN;
  });
}

// The same threads again, so that a short row comes from L1, a chunk from L2. Each thread writes what
// it has read, for the gradients may take the logits' place.
template <class T, int kRowThreads>
__global__ void __launch_bounds__(row::kBlockThreads<kRowThreads>)
    linear_cross_entropy_differentiate_kernel(const __grid_constant__ LinearCrossEntropy<T> op,
                                              const __grid_constant__ Chunk<T> chunk) {
  constexpr int N = kVector<T>;
  const std::int64_t vocab = op.weight.extent[0];
  const float smoothing = op.label_smoothing, everywhere = smoothing / static_cast<float>(vocab);
  const float mean = linear_cross_entropy::gradient_scale(op, op.count(0));
  row::for_each_row<kRowThreads>(chunk.rows, [&](std::int64_t n) {
    const float* logits = chunk.scratch.logits + n * chunk.words;
    T* d_logits = chunk.scratch.d_logits + n * chunk.words;
    const std::int32_t target = op.target(chunk.first_row + n);
    const bool ignored = target == kIgnoreTarget, known = in_vocabulary(target, vocab);
    const RowState<float>& state = chunk.scratch.state[n];
    const float shift = row::Sums{state.max, 0.0F, 0.0F}.shift(), factor = 1.0F / state.sum;
    const float weighted =
        op.row_weight.present() ? mean * op.row_weight(chunk.first_row + n) : mean;
    const float scale = known ? weighted : NAN;
    const std::int64_t word = target - chunk.first_word;
    // Logits and gradients lie at equal offsets from aligned memory, so pieces that suit the
    // gradients' vectors suit the logits'.
    row::for_each_piece<kRowThreads, N>(
        d_logits, chunk.words, [&](std::int64_t first, std::int64_t size) {
          float x[N];
          load(logits + first, size, x);
#pragma unroll
          for (int i = 0; i < N; ++i) {
            const float hit = first + i == word ? 1.0F - smoothing : 0.0F;
            const float p = expf(x[i] - shift) * factor;
            x[i] = ignored ? 0.0F : scale * ((p - hit) - everywhere);
          }
          store(d_logits + first, size, x);
        });
  });
}

template <class T>
struct Rows {
  const Cuda& device;
  const LinearCrossEntropy<T>& op;

  void add(const Chunk<T>& chunk) const {
    row::with_row_threads(chunk.words, [&]<int kThreads>(std::integral_constant<int, kThreads>) {
      launch(device, row::grid<kThreads, row::Shared<kThreads>>(chunk.rows),
             linear_cross_entropy_add_kernel<T, kThreads>, op, chunk);
    });
  }
  void differentiate(const Chunk<T>& chunk) const {
    row::with_row_threads(chunk.words, [&]<int kThreads>(std::integral_constant<int, kThreads>) {
      launch(device, row::grid<kThreads, row::Shared<kThreads>>(chunk.rows),
             linear_cross_entropy_differentiate_kernel<T, kThreads>, op, chunk);
    });
  }
};

}  // namespace

template <class T>
std::size_t LinearCrossEntropy<T>::scratch_bytes(const Cuda& device) const {
  ScratchCutter cut;
  linear_cross_entropy::lay_out(cut, *this, device);
  return cut.bytes();
}

template <class T>
void LinearCrossEntropy<T>::run(const Cuda& device) const {
  ScratchCutter cut(device, scratch);
  const auto parts = linear_cross_entropy::lay_out(cut, *this, device);
  cut.expect_enough("linear_cross_entropy: scratch bytes");
  linear_cross_entropy::note_plan(*this, device);
  note_row_width<T>("V", weight.extent[0]);
  launch(device, {.threads = kThreads, .shared_bytes = sizeof(CountShared)},
         linear_cross_entropy_count_kernel<T>, *this);
  linear_cross_entropy::run_tiles(device, *this, parts, Rows<T>{device, *this});
  launch(device, {.threads = kThreads, .shared_bytes = sizeof(MeanShared)},
         linear_cross_entropy_mean_kernel<T>, *this);
}

template void LinearCrossEntropy<float>::run(const Cuda&) const;
template std::size_t LinearCrossEntropy<float>::scratch_bytes(const Cuda&) const;
template void LinearCrossEntropy<bf16>::run(const Cuda&) const;
template std::size_t LinearCrossEntropy<bf16>::scratch_bytes(const Cuda&) const;

}  // namespace carousel
