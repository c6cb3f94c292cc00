#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/cross_entropy/row.h"
#include "kernels/linear_cross_entropy/chunk.h"

namespace carousel {
namespace {

using linear_cross_entropy::Chunk;
using linear_cross_entropy::RowState;

// Fewer logits than this are not worth waking the other threads for.
constexpr std::int64_t kParallelLogits = 32768;

/// exp(from − to), by which a sum relative to `from` is multiplied to be relative to `to`. Equal
/// infinities give 1; a NaN in the sum stays one.
template <class A>
A rescale(A from, A to) {
  return from == to ? A{1} : std::exp(from - to);
}

/// Takes the logits of a chunk's row into the row's state. `word` is the target's place in the chunk.
template <class A>
void add_logits(RowState<A>& state, const A* logits, std::int64_t words, bool begins,
                std::int64_t word, bool smoothed) {
  const row::LogSumExp<A> part = row::log_sum_exp<A>(logits, words);
  if (begins) {
    state = {.max = part.max,
             .sum = part.sum,
             .from = std::isfinite(logits[0]) ? logits[0] : A{0},
             .differences = 0,
             .target = std::numeric_limits<A>::quiet_NaN()};
  } else {
    const A max = std::max(state.max, part.max);
    state.sum = state.sum * rescale(state.max, max) + part.sum * rescale(part.max, max);
    state.max = max;
  }
  if (word >= 0 && word < words) state.target = logits[word];
  if (smoothed) state.differences += row::sum_of_differences(logits, words, state.from);
}

template <class T>
class Rows {
 public:
  using A = Accumulator<T>;
  explicit Rows(const LinearCrossEntropy<T>& op)
      : op_(op), scale_(linear_cross_entropy::gradient_scale(op, op.count(0))) {}

  void add(const Chunk<T>& chunk) const {
    const bool ends = chunk.first_word + chunk.words == op_.weight.extent[0];
#pragma omp parallel for schedule(static) if (chunk.rows * chunk.words >= kParallelLogits)
    for (std::int64_t n = 0; n < chunk.rows; ++n) {
      const std::int32_t word = op_.target(chunk.first_row + n);
      RowState<A>& state = chunk.scratch.state[n];
      add_logits(state, chunk.scratch.logits + n * chunk.words, chunk.words, chunk.first_word == 0,
                 word - chunk.first_word, op_.label_smoothing != 0);
      if (ends) op_.loss(chunk.first_row + n) = loss(state, word);
    }
  }

  void differentiate(const Chunk<T>& chunk) const {
#pragma omp parallel for schedule(static) if (chunk.rows * chunk.words >= kParallelLogits)
    for (std::int64_t n = 0; n < chunk.rows; ++n) differentiate(chunk, n);
  }

 private:
  A loss(const RowState<A>& state, std::int32_t word) const {
    const std::int64_t vocab = op_.weight.extent[0];
    if (word == kIgnoreTarget) return 0;
    if (!in_vocabulary(word, vocab)) return std::numeric_limits<A>::quiet_NaN();
    return row::loss<A>(state.target, vocab, static_cast<A>(op_.label_smoothing),
                        state.target_differences(vocab), {state.max, state.sum});
  }

  void differentiate(const Chunk<T>& chunk, std::int64_t n) const {
    const A* const logits = chunk.scratch.logits + n * chunk.words;
    T* const d_logits = chunk.scratch.d_logits + n * chunk.words;
    const std::int32_t target = op_.target(chunk.first_row + n);
    const std::int64_t vocab = op_.weight.extent[0];
    if (!in_vocabulary(target, vocab)) {
      const A value = target == kIgnoreTarget ? A{0} : std::numeric_limits<A>::quiet_NaN();
      std::fill_n(d_logits, chunk.words, static_cast<T>(value));
      return;
    }
    const RowState<A>& state = chunk.scratch.state[n];
    const row::LogSumExp<A> normaliser{state.max, state.sum};
    const auto smoothing = static_cast<A>(op_.label_smoothing);
    const A shift = normaliser.shift(), factor = 1 / normaliser.sum;
    const A everywhere = smoothing / static_cast<A>(vocab);
    const A scale =
        op_.row_weight.present() ? scale_ * op_.row_weight(chunk.first_row + n) : scale_;
    const std::int64_t word = target - chunk.first_word;
    const bool here = word >= 0 && word < chunk.words;
    // The target's element apart, from what is there before the row is overwritten: rounding
    // p − ε/V to T before subtracting 1 − ε would cost its digits.
    const A p = here ? cpu_exp(logits[word] - shift) * factor : A{0};
    row::transform<A>(logits, d_logits, chunk.words,
                      [=](A x, A) { return scale * (cpu_exp(x - shift) * factor - everywhere); });
    if (here) d_logits[word] = static_cast<T>(scale * ((p - (1 - smoothing)) - everywhere));
  }

  const LinearCrossEntropy<T>& op_;
  A scale_;
};

}  // namespace

template <class T>
std::size_t LinearCrossEntropy<T>::scratch_bytes(const Cpu& cpu) const {
  ScratchCutter cut;
  linear_cross_entropy::lay_out(cut, *this, cpu);
  return cut.bytes();
}

template <class T>
void LinearCrossEntropy<T>::run(const Cpu& cpu) const {
  using A = Accumulator<T>;
  ScratchCutter cut(cpu, scratch);
  const auto parts = linear_cross_entropy::lay_out(cut, *this, cpu);
  cut.expect_enough("linear_cross_entropy: scratch bytes");
  linear_cross_entropy::note_plan(*this, cpu);
  const std::int64_t rows = hidden.extent[0];
  count(0) =
      static_cast<std::int32_t>(rows - std::count(target.data, target.data + rows, kIgnoreTarget));
  linear_cross_entropy::run_tiles(cpu, *this, parts, Rows<T>(*this));
  double sum = 0;
  for (std::int64_t n = 0; n < rows; ++n) sum += linear_cross_entropy::weighted_loss(*this, n);
  const double divisor = linear_cross_entropy::denominator(*this, count(0));
  mean_loss(0) = divisor == 0 ? A{0} : static_cast<A>(sum / divisor);
}

template void LinearCrossEntropy<float>::run(const Cpu&) const;
template void LinearCrossEntropy<bf16>::run(const Cpu&) const;
template void LinearCrossEntropy<double>::run(const Cpu&) const;
template std::size_t LinearCrossEntropy<float>::scratch_bytes(const Cpu&) const;
template std::size_t LinearCrossEntropy<bf16>::scratch_bytes(const Cpu&) const;
template std::size_t LinearCrossEntropy<double>::scratch_bytes(const Cpu&) const;

}  // namespace carousel
