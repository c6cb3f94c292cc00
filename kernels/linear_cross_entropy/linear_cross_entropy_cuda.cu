#include <algorithm>
#include <type_traits>

#include "kernels/common/check.h"
#include "kernels/common/cuda/gemm.h"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/cross_entropy/row.cuh"
#include "kernels/linear_cross_entropy/chunk.h"

namespace carousel {
namespace {

constexpr int kThreads = 1024;

/// Rows [first, first + rows) of the op, and the scratch they use.
template <class T>
struct Chunk {
  std::int64_t first, rows;
  linear_cross_entropy::Scratch<T> scratch;
};

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

// A row's threads read it twice: for its sums, and to turn logits into gradients. The second time it
// comes from L2, or from L1 if it is short.
template <class T, int kRowThreads>
__global__ void __launch_bounds__(row::kBlockThreads<kRowThreads>)
    linear_cross_entropy_row_kernel(const __grid_constant__ LinearCrossEntropy<T> op,
                                    const __grid_constant__ Chunk<T> chunk) {
  constexpr int N = kVector<T>;
  auto& shared = dynamic_shared<row::Shared<kRowThreads>>();
  const std::int64_t vocab = op.weight.extent[0];
  const float smoothing = op.label_smoothing;
  const float mean = linear_cross_entropy::gradient_scale(op, op.count(0));
  row::for_each_row<kRowThreads>(chunk.rows, [&](std::int64_t n) {
    const float* logits = chunk.scratch.logits + n * vocab;
    const std::int32_t word = op.target(chunk.first + n);
    const bool ignored = word == kIgnoreTarget, known = in_vocabulary(word, vocab);
    const float logit = known ? logits[word] : NAN;
    // The reduction is also what keeps the gradients, which may take the logits' place, behind
    // every read of them.
    const row::Sums sums =
        row::sum_row<kRowThreads, N>(logits, vocab, logit, smoothing != 0.0F, shared);
    if (threadIdx.x % kRowThreads == 0) {
      op.loss(chunk.first + n) = ignored ? 0.0F : row::loss(sums, logit, smoothing, vocab);
    }
    if (chunk.scratch.d_logits == nullptr) return;  // from the row; no barrier follows

    T* d_logits = chunk.scratch.d_logits + n * vocab;
    const float shift = sums.shift(), factor = 1.0F / sums.sum;
    const float weighted = op.row_weight.present() ? mean * op.row_weight(chunk.first + n) : mean;
    const float scale = known ? weighted : NAN, everywhere = smoothing / static_cast<float>(vocab);
    // Logits and gradients lie at equal offsets from aligned memory, so pieces that suit the
    // gradients' vectors suit the logits'.
    row::for_each_piece<kRowThreads, N>(logits, vocab, [&](std::int64_t first, std::int64_t size) {
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
void add_bias_gradient(const Cuda& device, const LinearCrossEntropy<T>& op, const Chunk<T>& chunk) {
  const std::int64_t vocab = op.weight.extent[0];
  ColumnSum<T>{.x = {chunk.scratch.d_logits, {chunk.rows, vocab}},
               .sum = {op.d_bias.view, op.d_bias.accumulate || chunk.first != 0},
               .scratch = {chunk.scratch.sums, {column_sum_scratch(chunk.rows, vocab)}}}
      .run(device);
}

template <class T>
void run_chunk(const Cuda& device, const LinearCrossEntropy<T>& op, const Chunk<T>& chunk) {
  constexpr bool kBf16 = std::is_same_v<T, bf16>;
  const GemmType type = kBf16 ? GemmType::bf16 : op.tf32 ? GemmType::tf32 : GemmType::f32;
  const std::int64_t vocab = op.weight.extent[0], width = op.weight.extent[1];
  const T* hidden = op.hidden.data + chunk.first * width;
  gemm(device, {.type = type,
                .transpose_b = true,
                .float_output = kBf16,
                .m = chunk.rows,
                .n = vocab,
                .k = width,
                .a = hidden,
                .b = op.weight.data,
                .bias = op.bias.data,
                .c = chunk.scratch.logits});
  row::with_row_threads(vocab, [&]<int kRowThreads>(std::integral_constant<int, kRowThreads>) {
    launch(device, row::grid<kRowThreads, row::Shared<kRowThreads>>(chunk.rows),
           linear_cross_entropy_row_kernel<T, kRowThreads>, op, chunk);
  });
  if (op.d_hidden.present()) {
    gemm(device, {.type = type,
                  .accumulate = op.d_hidden.accumulate,
                  .m = chunk.rows,
                  .n = width,
                  .k = vocab,
                  .a = chunk.scratch.d_logits,
                  .b = op.weight.data,
                  .c = op.d_hidden.view.data + chunk.first * width});
  }
  if (op.d_weight.present()) {
    gemm(device, {.type = type,
                  .transpose_a = true,
                  .accumulate = op.d_weight.accumulate || chunk.first != 0,
                  .float_output = kBf16,
                  .m = vocab,
                  .n = width,
                  .k = chunk.rows,
                  .a = chunk.scratch.d_logits,
                  .b = hidden,
                  .c = op.d_weight.view.data});
  }
  if (op.d_bias.present()) add_bias_gradient(device, op, chunk);
}

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
  const std::int64_t rows = hidden.extent[0];
  const std::int64_t step = std::max<std::int64_t>(rows_per_chunk(Device(device)), 1);
  linear_cross_entropy::note_chunks(rows, step);
  note_row_width<T>("V", weight.extent[0]);
  launch(device, {.threads = kThreads, .shared_bytes = sizeof(CountShared)},
         linear_cross_entropy_count_kernel<T>, *this);
  // Once even if there are no rows: the empty products write what must be written.
  for (std::int64_t first = 0; first == 0 || first < rows; first += step) {
    run_chunk<T>(device, *this,
                 {.first = first, .rows = std::min(step, rows - first), .scratch = parts});
  }
  launch(device, {.threads = kThreads, .shared_bytes = sizeof(MeanShared)},
         linear_cross_entropy_mean_kernel<T>, *this);
}

template void LinearCrossEntropy<float>::run(const Cuda&) const;
template std::size_t LinearCrossEntropy<float>::scratch_bytes(const Cuda&) const;
template void LinearCrossEntropy<bf16>::run(const Cuda&) const;
template std::size_t LinearCrossEntropy<bf16>::scratch_bytes(const Cuda&) const;

}  // namespace carousel
