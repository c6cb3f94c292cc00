#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/common/cpu_parallel.h"
#include "kernels/cross_entropy/row.h"
#include "kernels/sampled_loss/steps.h"

namespace carousel {
namespace {

using sampled_loss::Scratch;

/// Σ a·b in fixed lanes.
template <class A, class T>
A dot(const T* a, const T* b, std::int64_t size) {
  row::Block<A> lanes{};
  std::int64_t i = 0;
  for (; i + row::kLanes <= size; i += row::kLanes) {
#pragma omp simd
    for (int l = 0; l < row::kLanes; ++l) {
      lanes.lane[l] += row::widened<A>(a[i + l]) * row::widened<A>(b[i + l]);
    }
  }
  for (int l = 0; i < size; ++i, ++l) {
    lanes.lane[l] += row::widened<A>(a[i]) * row::widened<A>(b[i]);
  }
  return row::total(lanes);
}

/// The loss of one row, and the gradients of its logits: those of the drawn words, and that of x.
template <class T>
struct Row {
  using A = Accumulator<T>;
  A* logits;
  T* d_logits;
  std::int64_t words;
  A scale;
  A loss = 0, d_target = 0;

  void softmax(A x, const std::int32_t* drawn, std::int32_t target) {
    constexpr A kNone = -std::numeric_limits<A>::infinity();
    for (std::int64_t s = 0; s < words; ++s) logits[s] = drawn[s] == target ? kNone : logits[s];
    const row::LogSumExp<A> of_drawn = row::log_sum_exp<A>(logits, words);
    const A max = std::max(x, of_drawn.max);
    // Not a product where all were hits: it might be 0·inf.
    const A own = std::exp(x - max), rest = of_drawn.max == kNone
                                                ? of_drawn.sum
                                                : of_drawn.sum * std::exp(of_drawn.max - max);
    const A sum = own + rest, factor = 1 / sum;
    loss = (max - x) + std::log(sum);
    d_target = -scale * (rest * factor);  // own / sum − 1, without the cancellation
    row::transform<A>(logits, d_logits, words,
                      [=, this](A z, A) { return scale * (cpu_exp(z - max) * factor); });
  }
  void noise(A x) {
    row::Block<A> sum{};
    row::fold(sum, logits, words, -std::numeric_limits<A>::infinity(),
              [](A so_far, A z) { return so_far - cpu_log_sigmoid(-z); });
    loss = row::total(sum) - cpu_log_sigmoid(x);
    d_target = -scale * cpu_sigmoid(-x);
    row::transform<A>(logits, d_logits, words,
                      [=, this](A z, A) { return scale * cpu_sigmoid(z); });
  }
};

template <class T>
void solve_row(const SampledLoss<T>& op, const Scratch<T>& scratch, std::int64_t n) {
  using A = Accumulator<T>;
  const std::int64_t width = op.hidden.extent[1], words = sampled_loss::drawn(op);
  Row<T> row{.logits = scratch.logits + n * words,
             .d_logits = scratch.d_logits + n * words,
             .words = words,
             .scale = sampled_loss::gradient_scale(op)};
  if (!sampled_loss::is_known(op, n)) {
    const bool ignored = op.candidate(n) == kNoToken;
    const A value = ignored ? A{0} : std::numeric_limits<A>::quiet_NaN();
    op.loss(n) = value;
    scratch.d_target[n] = value;
    std::fill_n(row.d_logits, words, static_cast<T>(value));
    return;
  }
  const A x = dot<A>(&op.hidden(n, 0), &op.row(n, 0), width) + op.bias(n);
  if (op.kind == SampledKind::softmax) {
    row.softmax(x, op.candidate.data + op.hidden.extent[0], op.candidate(n));
  } else {
    row.noise(x - sampled_loss::log_expected(op, n));
  }
  op.loss(n) = row.loss;
  scratch.d_target[n] = row.d_target;
}

/// The gradients of row n by way of its target. An ignored row's d_row is 0 whatever the row holds.
template <class T>
void add_target(const SampledLoss<T>& op, const Scratch<T>& scratch, std::int64_t n) {
  using A = Accumulator<T>;
  const std::int64_t width = op.hidden.extent[1];
  const A d = scratch.d_target[n];
  const bool ignored = op.candidate(n) == kNoToken;
  if (op.d_hidden.present() && !ignored) {
    row::transform<A>(&op.row(n, 0), &op.d_hidden.view(n, 0), width,
                      [d](A w, A before) { return before + d * w; });
  }
  if (!op.d_row.present()) return;
  op.d_bias(n) = d;
  if (ignored) {
    std::fill_n(&op.d_row(n, 0), width, T{});
  } else {
    row::transform<A>(&op.hidden(n, 0), &op.d_row(n, 0), width, [d](A h, A) { return d * h; });
  }
}

}  // namespace

template <class A>
void SampledCandidates<A>::run(const Cpu&) const {
  const std::int64_t rows = target.extent[0], words = candidate.extent[0] - rows;
  std::int64_t known = 0;
  for (std::int64_t n = 0; n < rows; ++n) {
    const bool ignored = target(n) == kIgnoreTarget;
    candidate(n) = ignored ? kNoToken : target(n);
    known += ignored ? 0 : 1;
  }
  counted(0) = static_cast<A>(known);
  if (words == 0) return;
  const std::int64_t step = source.step(0);
#pragma omp parallel for schedule(static) if (words > kCpuChunk)
  for (std::int64_t s = 0; s < words; s += 2) {
    const auto random = source.words(static_cast<std::uint64_t>(s) / 2, step);
    candidate(rows + s) = table.draw(random[0], random[1]);
    if (s + 1 < words) candidate(rows + s + 1) = table.draw(random[2], random[3]);
  }
}

template <class T>
std::size_t SampledLoss<T>::scratch_bytes(const Cpu& cpu) const {
  ScratchCutter cut;
  sampled_loss::lay_out(cut, *this, cpu);
  return cut.bytes();
}

template <class T>
void SampledLoss<T>::run(const Cpu& cpu) const {
  using A = Accumulator<T>;
  ScratchCutter cut(cpu, scratch);
  const Scratch<T> parts = sampled_loss::lay_out(cut, *this, cpu);
  cut.expect_enough("sampled_loss: scratch bytes");
  const std::int64_t rows = hidden.extent[0], words = sampled_loss::drawn(*this);
  for (std::int64_t s = 0; s < words; ++s) {
    parts.offset[s] = bias(rows + s) - sampled_loss::log_expected(*this, rows + s);
  }
  sampled_loss::multiply_logits(cpu, *this, parts);
#pragma omp parallel for schedule(static) if (rows * words > kCpuChunk)
  for (std::int64_t n = 0; n < rows; ++n) solve_row(*this, parts, n);
  double sum = 0;
  for (std::int64_t n = 0; n < rows; ++n) sum += static_cast<double>(loss(n));
  const auto divisor = static_cast<double>(denominator(0));
  mean_loss(0) = divisor == 0 ? A{0} : static_cast<A>(sum / divisor);
  if (!sampled_loss::wants_gradient(*this)) return;
  sampled_loss::multiply_gradients(cpu, *this, parts);
#pragma omp parallel for schedule(static) if (rows * hidden.extent[1] > kCpuChunk)
  for (std::int64_t n = 0; n < rows; ++n) add_target(*this, parts, n);
}

template void SampledCandidates<float>::run(const Cpu&) const;
template void SampledCandidates<double>::run(const Cpu&) const;
template void SampledLoss<float>::run(const Cpu&) const;
template void SampledLoss<bf16>::run(const Cpu&) const;
template void SampledLoss<double>::run(const Cpu&) const;
template std::size_t SampledLoss<float>::scratch_bytes(const Cpu&) const;
template std::size_t SampledLoss<bf16>::scratch_bytes(const Cpu&) const;
template std::size_t SampledLoss<double>::scratch_bytes(const Cpu&) const;

}  // namespace carousel
