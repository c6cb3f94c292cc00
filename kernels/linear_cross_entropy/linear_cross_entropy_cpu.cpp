#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/common/check.h"
#include "kernels/common/cpu_product.h"
#include "kernels/cross_entropy/row.h"
#include "kernels/linear_cross_entropy/chunk.h"

namespace carousel {
namespace {

// What a chunk of logits may fill: an L2 cache on the CPU; most of the 40 to 60 MB of an A100 or
// H100 on CUDA.
constexpr std::int64_t kCpuCacheBytes = std::int64_t{1} << 20;
constexpr std::int64_t kCudaCacheBytes = std::int64_t{32} << 20;
// Fewer logits than this are not worth waking the other threads for.
constexpr std::int64_t kParallelLogits = 32768;

template <class T>
void check_extents(const LinearCrossEntropy<T>& op) {
  const auto [rows, width] = op.hidden.extent;
  const std::int64_t vocab = op.weight.extent[0];
  if (vocab == 0) throw ShapeError("linear_cross_entropy: weight has 0 rows, expected at least 1");
  expect_extent("linear_cross_entropy: weight columns", op.weight.extent[1], width);
  expect_extent("linear_cross_entropy: target rows", op.target.extent[0], rows);
  expect_extent("linear_cross_entropy: loss rows", op.loss.extent[0], rows);
  expect_extent("linear_cross_entropy: mean_loss extent", op.mean_loss.extent[0], 1);
  expect_extent("linear_cross_entropy: count extent", op.count.extent[0], 1);
  if (op.row_weight.present()) {
    expect_extent("linear_cross_entropy: row_weight rows", op.row_weight.extent[0], rows);
  }
  if (op.denominator.present()) {
    expect_extent("linear_cross_entropy: denominator extent", op.denominator.extent[0], 1);
  }
  if (op.bias.present()) {
    expect_extent("linear_cross_entropy: bias extent", op.bias.extent[0], vocab);
  }
  if (op.d_hidden.present()) {
    expect_extent("linear_cross_entropy: d_hidden rows", op.d_hidden.view.extent[0], rows);
    expect_extent("linear_cross_entropy: d_hidden columns", op.d_hidden.view.extent[1], width);
  }
  if (op.d_weight.present()) {
    expect_extent("linear_cross_entropy: d_weight rows", op.d_weight.view.extent[0], vocab);
    expect_extent("linear_cross_entropy: d_weight columns", op.d_weight.view.extent[1], width);
  }
  if (op.d_bias.present()) {
    expect_extent("linear_cross_entropy: d_bias extent", op.d_bias.view.extent[0], vocab);
  }
}

}  // namespace

template <class T>
void LinearCrossEntropy<T>::check() const {
  check_extents(*this);
  check_label_smoothing("linear_cross_entropy", label_smoothing);
  if (!std::isfinite(term_weight)) {
    throw ConfigError(fmt::format(
        "linear_cross_entropy: term_weight is {}, expected a finite number", term_weight));
  }
  if (chunk_rows < 0) {
    throw ShapeError(
        fmt::format("linear_cross_entropy: chunk_rows is {}, expected at least 0", chunk_rows));
  }
}

template <class T>
std::int64_t LinearCrossEntropy<T>::rows_per_chunk(const Device& device) const {
  const auto [rows, width] = hidden.extent;
  if (rows == 0) return 0;
  if (chunk_rows > 0) return std::min(chunk_rows, rows);
  constexpr auto kElement = static_cast<std::int64_t>(sizeof(Accumulator<T>));
  constexpr auto kGradient =
      static_cast<std::int64_t>(linear_cross_entropy::kSeparateGradient<T> ? sizeof(T) : 0);
  const std::int64_t row_bytes = weight.extent[0] * (kElement + (wants_gradient() ? kGradient : 0));
  const std::int64_t cached = (is_cpu(device) ? kCpuCacheBytes : kCudaCacheBytes) / row_bytes;
  // An eighth is left for alignment and the sums of d_bias.
  const std::int64_t allowed = kScratchLimit / 8 * 7 / row_bytes;
  const std::int64_t most = std::max<std::int64_t>(std::min(std::max(cached, width), allowed), 1);
  const std::int64_t chunks = (rows + most - 1) / most;
  return (rows + chunks - 1) / chunks;
}

template <class T>
std::size_t LinearCrossEntropy<T>::scratch_bytes(const Cpu& cpu) const {
  ScratchCutter cut;
  linear_cross_entropy::lay_out(cut, *this, cpu);
  return cut.bytes();
}

namespace {

/// Rows [first, first + rows) of the op, and the scratch they use.
template <class T>
struct Chunk {
  std::int64_t first = 0, rows = 0;
  linear_cross_entropy::Scratch<T> scratch;
};

/// One row: its loss, and its logits' gradients scaled by `scale`. The exponentials are kept where
/// the logits were, so that each is computed once.
template <class T>
Accumulator<T> finish_row(Accumulator<T>* logits, T* d_logits, const LinearCrossEntropy<T>& op,
                          std::int32_t word, Accumulator<T> scale) {
  using A = Accumulator<T>;
  const std::int64_t vocab = op.weight.extent[0];
  const auto smoothing = static_cast<A>(op.label_smoothing);
  if (!in_vocabulary(word, vocab)) {
    const A value = word == kIgnoreTarget ? A{0} : std::numeric_limits<A>::quiet_NaN();
    if (d_logits != nullptr) std::fill_n(d_logits, vocab, static_cast<T>(value));
    return value;
  }
  if (d_logits == nullptr) {
    return row::loss(logits, vocab, word, smoothing, row::log_sum_exp<A>(logits, vocab));
  }
  row::LogSumExp<A> normaliser{row::largest<A>(logits, vocab), 0};
  const A shift = normaliser.shift(), logit = logits[word];
  const A differences = smoothing == 0 ? A{0} : row::sum_of_differences(logits, vocab, logit);
  normaliser.sum = row::exponentiate(logits, vocab, shift);
  const A everywhere = smoothing / static_cast<A>(vocab), factor = 1 / normaliser.sum;
  const A p = logits[word] * factor;
  row::transform<A>(logits, d_logits, vocab,
                    [=](A e, A) { return scale * (e * factor - everywhere); });
  d_logits[word] = static_cast<T>(scale * ((p - (1 - smoothing)) - everywhere));
  return row::loss(logit, vocab, smoothing, differences, normaliser);
}

/// d_bias (+)= Σ over the chunk's rows, in order: columns are divided among the threads, not rows.
template <class T>
void sum_columns(const Chunk<T>& chunk, View<Accumulator<T>, 1> d_bias, bool accumulate) {
  using A = Accumulator<T>;
  constexpr std::int64_t kColumns = 256;
  const std::int64_t vocab = d_bias.extent[0];
#pragma omp parallel for schedule(static) if (chunk.rows * vocab >= kParallelLogits)
  for (std::int64_t v = 0; v < vocab; v += kColumns) {
    const std::int64_t columns = std::min(kColumns, vocab - v);
    A sum[kColumns] = {};
    for (std::int64_t n = 0; n < chunk.rows; ++n) {
      const T* row = chunk.scratch.d_logits + n * vocab + v;
#pragma omp simd
      for (std::int64_t i = 0; i < columns; ++i) sum[i] += static_cast<A>(row[i]);
    }
    for (std::int64_t i = 0; i < columns; ++i) {
      d_bias(v + i) = accumulate ? d_bias(v + i) + sum[i] : sum[i];
    }
  }
}

template <class T>
void run_chunk(const LinearCrossEntropy<T>& op, const Chunk<T>& chunk, Accumulator<T> scale) {
  using A = Accumulator<T>;
  const std::int64_t vocab = op.weight.extent[0], width = op.weight.extent[1];
  const T* hidden = op.hidden.data + chunk.first * width;
  const T* d_logits = chunk.scratch.d_logits;
  multiply(CpuProduct<T, A>{.transpose_b = true,
                            .m = chunk.rows,
                            .n = vocab,
                            .k = width,
                            .a = hidden,
                            .b = op.weight.data,
                            .bias = op.bias.data,
                            .c = chunk.scratch.logits});
#pragma omp parallel for schedule(static) if (chunk.rows * vocab >= kParallelLogits)
  for (std::int64_t n = 0; n < chunk.rows; ++n) {
    op.loss(chunk.first + n) =
        finish_row<T>(chunk.scratch.logits + n * vocab,
                      d_logits == nullptr ? nullptr : chunk.scratch.d_logits + n * vocab, op,
                      op.target(chunk.first + n),
                      op.row_weight.present() ? scale * op.row_weight(chunk.first + n) : scale);
  }
  if (op.d_hidden.present()) {
    multiply(CpuProduct<T>{.accumulate = op.d_hidden.accumulate,
                           .m = chunk.rows,
                           .n = width,
                           .k = vocab,
                           .a = d_logits,
                           .b = op.weight.data,
                           .c = op.d_hidden.view.data + chunk.first * width});
  }
  if (op.d_weight.present()) {
    multiply(CpuProduct<T, A>{.transpose_a = true,
                              .accumulate = op.d_weight.accumulate || chunk.first != 0,
                              .m = vocab,
                              .n = width,
                              .k = chunk.rows,
                              .a = d_logits,
                              .b = hidden,
                              .c = op.d_weight.view.data});
  }
  if (op.d_bias.present()) {
    sum_columns(chunk, op.d_bias.view, op.d_bias.accumulate || chunk.first != 0);
  }
}

}  // namespace

template <class T>
void LinearCrossEntropy<T>::run(const Cpu& cpu) const {
  using A = Accumulator<T>;
  ScratchCutter cut(cpu, scratch);
  const auto parts = linear_cross_entropy::lay_out(cut, *this, cpu);
  cut.expect_enough("linear_cross_entropy: scratch bytes");
  const std::int64_t rows = hidden.extent[0];
  const std::int64_t step = std::max<std::int64_t>(rows_per_chunk(cpu), 1);
  linear_cross_entropy::note_chunks(rows, step);
  count(0) =
      static_cast<std::int32_t>(rows - std::count(target.data, target.data + rows, kIgnoreTarget));
  const A scale = linear_cross_entropy::gradient_scale(*this, count(0));
  // Once even if there are no rows: the empty products write what must be written.
  for (std::int64_t first = 0; first == 0 || first < rows; first += step) {
    run_chunk<T>(*this, {.first = first, .rows = std::min(step, rows - first), .scratch = parts},
                 scale);
  }
  double sum = 0;
  for (std::int64_t n = 0; n < rows; ++n) sum += linear_cross_entropy::weighted_loss(*this, n);
  const double divisor = linear_cross_entropy::denominator(*this, count(0));
  mean_loss(0) = divisor == 0 ? A{0} : static_cast<A>(sum / divisor);
}

template struct LinearCrossEntropy<float>;
template struct LinearCrossEntropy<bf16>;
template struct LinearCrossEntropy<double>;

}  // namespace carousel
