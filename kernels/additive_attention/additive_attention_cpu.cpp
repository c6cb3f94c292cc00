#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/additive_attention/additive_attention.h"
#include "kernels/common/check.h"
#include "kernels/common/cpu_math.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/common/scratch.h"
#include "kernels/reduce/reduce.h"
#include "kernels/reduce/row_sum.h"

// A row of the batch belongs to one thread. In it each key is met by all queries in turn, so that it is
// read, and widened, once.
namespace carousel {
namespace {

template <class Acc>
using Numbers = std::vector<Acc>;

/// The steps of row b of x [T, B, C], side by side.
template <class T>
Numbers<Accumulator<T>> steps_of(View<const T, 3> x, std::int64_t b) {
  const auto [steps, rows, columns] = x.extent;
  Numbers<Accumulator<T>> result(static_cast<std::size_t>(steps * columns));
  for (std::int64_t t = 0; t < steps; ++t) {
    const T* const from = x.data + (t * rows + b) * columns;
    Accumulator<T>* const to = result.data() + t * columns;
    for (std::int64_t c = 0; c < columns; ++c) to[c] = static_cast<Accumulator<T>>(from[c]);
  }
  return result;
}

/// Calls body(b) for the rows, on all threads if each has enough to do.
template <class Op, class Body>
void for_rows(const Op& op, const Body& body) {
  const auto [queries, rows, width] = op.q.extent;
  const std::int64_t work = queries * rows * width * op.k.extent[0];
#pragma omp parallel for schedule(static) if (work > kCpuChunk)
  for (std::int64_t b = 0; b < rows; ++b) body(b);
}

template <class Acc>
Acc score_of(const Acc* q, const Acc* k, const Acc* score, std::int64_t width) {
  return row_sum::sum<Acc>(
      width, [=](std::int64_t h) { return score[h]; },
      [=](std::int64_t h) { return cpu_tanh(q[h] + k[h]); });
}

/// z[0, count) becomes its softmax.
template <class Acc>
void softmax(Acc* z, std::int64_t count) {
  Acc largest = z[0], sum = 0;
  for (std::int64_t s = 1; s < count; ++s) largest = largest >= z[s] ? largest : z[s];
  for (std::int64_t s = 0; s < count; ++s) sum += z[s] = cpu_exp(z[s] - largest);
  for (std::int64_t s = 0; s < count; ++s) z[s] /= sum;
}

template <class T>
void attend(const AdditiveAttentionForward<T>& op, std::int64_t b) {
  using Acc = Accumulator<T>;
  const auto [queries, rows, width] = op.q.extent;
  const std::int64_t all = op.k.extent[0], columns = op.v.extent[2];
  const std::int64_t keys = additive_keys(op.length, b, all);
  const Numbers<Acc> q = steps_of(op.q, b);
  Numbers<Acc> score_buffer(static_cast<std::size_t>(width)), k_buffer(score_buffer.size()),
      y(static_cast<std::size_t>(columns));
  const Acc* const score = row_sum::widened(op.score.data, width, score_buffer);
  Acc* const weights = op.weights.data + b * queries * all;
  for (std::int64_t s = 0; s < keys; ++s) {
    const Acc* const k = row_sum::widened(op.k.data + (s * rows + b) * width, width, k_buffer);
    for (std::int64_t t = 0; t < queries; ++t) {
      weights[t * all + s] = score_of(q.data() + t * width, k, score, width);
    }
  }
  for (std::int64_t t = 0; t < queries; ++t) {
    Acc* const weight = weights + t * all;
    if (keys > 0) softmax(weight, keys);
    std::fill(weight + keys, weight + all, Acc{0});
    std::fill(y.begin(), y.end(), Acc{0});
    Acc* const sum = y.data();
    for (std::int64_t s = 0; s < keys; ++s) {
      const T* const v = op.v.data + (s * rows + b) * columns;
      const Acc own = weight[s];
#pragma GCC ivdep
      for (std::int64_t d = 0; d < columns; ++d) {
        sum[d] = std::fma(own, static_cast<Acc>(v[d]), sum[d]);
      }
    }
    T* const to = op.y.data + (t * rows + b) * columns;
    for (std::int64_t d = 0; d < columns; ++d) to[d] = static_cast<T>(sum[d]);
  }
}

/// to (+)= factor ∘ from; a factor that is absent is 1.
template <class T, class Acc>
void write(const Gradient<T, 3>& to, std::int64_t row, const Acc* from, const Acc* factor) {
  const std::int64_t columns = to.view.extent[2];
  T* const out = to.view.data + row * columns;
#pragma GCC ivdep
  for (std::int64_t c = 0; c < columns; ++c) {
    const Acc own = factor != nullptr ? from[c] * factor[c] : from[c];
    out[c] = static_cast<T>(to.accumulate ? own + static_cast<Acc>(out[c]) : own);
  }
}

/// A row of the backward pass.
template <class T>
class RowBackward {
 public:
  using Acc = Accumulator<T>;

  RowBackward(const AdditiveAttentionBackward<T>& op, std::int64_t b, Acc* d_score)
      : op_(op),
        b_(b),
        keys_(additive_keys(op.length, b, op.k.extent[0])),
        q_(steps_of(op.q, b)),
        d_y_(steps_of(op.d_y, b)),
        d_z_(static_cast<std::size_t>(queries() * keys_)),
        d_q_(q_.size()),
        k_buffer_(static_cast<std::size_t>(width())),
        sum_(static_cast<std::size_t>(std::max(width(), columns()))),
        score_buffer_(k_buffer_.size()),
        score_(row_sum::widened(op.score.data, width(), score_buffer_)),
        ignored_(d_score == nullptr ? k_buffer_.size() : 0),
        d_score_(d_score != nullptr ? d_score : ignored_.data()) {}

  void run() {
    score_gradients();
    std::fill_n(d_score_, width(), Acc{0});
    for (std::int64_t s = 0; s < op_.k.extent[0]; ++s) {
      const std::int64_t row = s * rows() + b_;
      const bool used = s < keys_;
      std::fill(sum_.begin(), sum_.end(), Acc{0});
      if (used) meet_key(s);
      if (op_.d_k.present() && (used || !op_.d_k.accumulate)) {
        write(op_.d_k, row, sum_.data(), used ? score_ : nullptr);
      }
      if (!op_.d_v.present() || (!used && op_.d_v.accumulate)) continue;
      std::fill(sum_.begin(), sum_.end(), Acc{0});
      if (used) meet_value(s);
      write(op_.d_v, row, sum_.data(), static_cast<const Acc*>(nullptr));
    }
    if (!op_.d_q.present()) return;
    for (std::int64_t t = 0; t < queries(); ++t) {
      write(op_.d_q, t * rows() + b_, d_q_.data() + t * width(), score_);
    }
  }

 private:
  std::int64_t queries() const { return op_.q.extent[0]; }
  std::int64_t rows() const { return op_.q.extent[1]; }
  std::int64_t width() const { return op_.q.extent[2]; }
  std::int64_t columns() const { return op_.v.extent[2]; }
  const Acc* weights(std::int64_t t) const {
    return op_.weights.data + (b_ * queries() + t) * op_.k.extent[0];
  }

  void score_gradients() {
    Numbers<Acc> buffer(static_cast<std::size_t>(columns()));
    for (std::int64_t s = 0; s < keys_; ++s) {
      const Acc* const v =
          row_sum::widened(op_.v.data + (s * rows() + b_) * columns(), columns(), buffer);
      for (std::int64_t t = 0; t < queries(); ++t) {
        const Acc* const d = d_y_.data() + t * columns();
        d_z_[static_cast<std::size_t>(t * keys_ + s)] = row_sum::sum<Acc>(
            columns(), [=](std::int64_t c) { return v[c]; }, [=](std::int64_t c) { return d[c]; });
      }
    }
    for (std::int64_t t = 0; t < queries(); ++t) {
      const Acc* const weight = weights(t);
      Acc *const d = d_z_.data() + t * keys_, mean = 0;
      for (std::int64_t s = 0; s < keys_; ++s) mean = std::fma(weight[s], d[s], mean);
      for (std::int64_t s = 0; s < keys_; ++s) d[s] = weight[s] * (d[s] - mean);
    }
  }

  /// What key s and all queries give each other.
  void meet_key(std::int64_t s) {
    const std::int64_t columns = width();
    const Acc* const k =
        row_sum::widened(op_.k.data + (s * rows() + b_) * columns, columns, k_buffer_);
    Acc *const d_k = sum_.data(), *const d_score = d_score_;
    for (std::int64_t t = 0; t < queries(); ++t) {
      const Acc d = d_z_[static_cast<std::size_t>(t * keys_ + s)];
      const Acc* const q = q_.data() + t * columns;
      Acc* const d_q = d_q_.data() + t * columns;
#pragma GCC ivdep
      for (std::int64_t h = 0; h < columns; ++h) {
        const Acc e = cpu_tanh(q[h] + k[h]), slope = d * ((1 - e) * (1 + e));
        d_k[h] += slope;
        d_q[h] += slope;
        d_score[h] = std::fma(d, e, d_score[h]);
      }
    }
  }

  void meet_value(std::int64_t s) {
    const std::int64_t count = columns();
    Acc* const sum = sum_.data();
    for (std::int64_t t = 0; t < queries(); ++t) {
      const Acc own = weights(t)[s], *const d = d_y_.data() + t * count;
#pragma GCC ivdep
      for (std::int64_t c = 0; c < count; ++c) sum[c] = std::fma(own, d[c], sum[c]);
    }
  }

  const AdditiveAttentionBackward<T>& op_;
  std::int64_t b_, keys_;
  Numbers<Acc> q_, d_y_, d_z_, d_q_;  ///< [T, H], [T, D], [T, keys], [T, H]
  Numbers<Acc> k_buffer_, sum_, score_buffer_;
  const Acc* score_;
  Numbers<Acc> ignored_;
  Acc* d_score_;
};

template <class T>
Accumulator<T>* lay_out(const AdditiveAttentionBackward<T>& op, ScratchCutter& cut) {
  return cut.take<Accumulator<T>>(op.d_score.present() ? op.q.extent[1] * op.q.extent[2] : 0);
}

}  // namespace

template <class T>
void AdditiveAttentionForward<T>::run(const Cpu&) const {
  for_rows(*this, [this](std::int64_t b) { attend(*this, b); });
}

template <class T>
std::size_t AdditiveAttentionBackward<T>::scratch_bytes(const Cpu&) const {
  ScratchCutter cut;
  lay_out(*this, cut);
  return cut.bytes();
}

template <class T>
void AdditiveAttentionBackward<T>::run(const Cpu& device) const {
  using Acc = Accumulator<T>;
  ScratchCutter cut(device, scratch);
  Acc* const parts = lay_out(*this, cut);
  cut.expect_enough("additive_attention: bytes of scratch");
  const std::int64_t rows = q.extent[1], width = q.extent[2];
  for_rows(*this, [&](std::int64_t b) {
    RowBackward<T>(*this, b, parts == nullptr ? nullptr : parts + b * width).run();
  });
  if (!d_score.present()) return;
  ColumnSum<Acc>{.x = {parts, {rows, width}}, .sum = d_score}.run(device);
}

template void AdditiveAttentionForward<float>::run(const Cpu&) const;
template void AdditiveAttentionForward<bf16>::run(const Cpu&) const;
template void AdditiveAttentionForward<double>::run(const Cpu&) const;
template std::size_t AdditiveAttentionBackward<float>::scratch_bytes(const Cpu&) const;
template std::size_t AdditiveAttentionBackward<bf16>::scratch_bytes(const Cpu&) const;
template std::size_t AdditiveAttentionBackward<double>::scratch_bytes(const Cpu&) const;
template void AdditiveAttentionBackward<float>::run(const Cpu&) const;
template void AdditiveAttentionBackward<bf16>::run(const Cpu&) const;
template void AdditiveAttentionBackward<double>::run(const Cpu&) const;

}  // namespace carousel
