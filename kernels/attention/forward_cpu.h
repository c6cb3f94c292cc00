#pragma once

#include <cmath>
#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/attention/cpu_products.h"

// The forward pass on the CPU. A task has some queries of one row and of the heads that share keys: it
// copies the keys, transposed, and the values once, and goes through tiles of kQueries × kKeys scores.
namespace carousel::attention_cpu {

inline constexpr std::int64_t kQueries = 32, kKeys = 128;

/// The running maximum and sum of kQueries rows of scores; the sum in lanes.
template <class A>
struct RunningRow {
  A max = -std::numeric_limits<A>::infinity();
  Vector<A> sum{};
  /// What is subtracted before exp: not −∞, for then a row without keys would become NaN.
  A shift() const { return max == -std::numeric_limits<A>::infinity() ? A{0} : max; }
};

/// What a thread keeps between tasks.
template <class A, class Products>
struct ForwardMemory {
  Products products;
  Numbers<typename Products::Number> key_rows, value_rows, queries;
  Numbers<typename Products::Packed> keys, values;
  Numbers<A> scores, sums;
};

template <class T, class Products>
class ForwardTask {
  using A = Accumulator<T>;
  using Number = typename Products::Number;
  using Packed = typename Products::Packed;
  static constexpr std::int64_t kRows = Products::kRows, kPack = Products::kPack;

 public:
  ForwardTask(const AttentionForward<T>& op, std::int64_t b, std::int64_t group,
              ForwardMemory<A, Products>& memory)
      : op_(op),
        b_(b),
        group_(group),
        keys_{op.rule, steps_of(op.length, b, op.k.steps())},
        width_(op.rule.head_width),
        padded_(rounded_up(width_, Products::kUnit)),
        factor_(static_cast<A>(op.rule.factor())),
        scale_(op.bias.present() ? A{1} : factor_),
        mask_(op),
        memory_(memory) {}

  /// Queries first ≤ t < last of all heads of the group; `first` is a multiple of kQueries.
  void run(std::int64_t first, std::int64_t last) {
    copy_keys(rounded_down(keys_.first(first), kKeys), keys_.end(last - 1));
    const std::int64_t share = op_.rule.heads / op_.rule.groups();
    for (std::int64_t a = group_ * share; a < (group_ + 1) * share; ++a) {
      for (std::int64_t t = first; t < last; t += kQueries) {
        attend(a, t, std::min(kQueries, last - t));
      }
    }
  }

 private:
  void copy_keys(std::int64_t first, std::int64_t end) {
    first_ = first;
    const std::int64_t count = std::max(end - first, std::int64_t{0}),
                       room = rounded_up(count, kPanel);
    const Matrix<Number> values{memory_.value_rows.take(room * padded_), padded_},
        rows{memory_.key_rows.take(kPanel * padded_), padded_};
    HeadSteps<T>(op_.v, b_, group_, width_).copy(first, count, room, values);
    values_ = memory_.products.pack_rows(values, room, memory_.values);
    panels_ = memory_.keys.take(room * padded_ / kPack);
    const HeadSteps<T> keys(op_.k, b_, group_, width_);
    for (std::int64_t s = 0; s < room; s += kPanel) {  // which stay in the first-level cache
      keys.copy(first + s, std::min(kPanel, count - s), kPanel, rows);
      memory_.products.pack_columns(rows, kPanel, panels_ + s * padded_ / kPack);
    }
  }

  void attend(std::int64_t a, std::int64_t t0, std::int64_t count) {
    const Matrix<Number> queries{memory_.queries.take(kQueries * padded_), padded_};
    const Matrix<A> sums{memory_.sums.take(kQueries * padded_), padded_};
    const std::int64_t rows = rounded_up(count, kRows), last = t0 + count;
    HeadSteps<T>(op_.q, b_, a, width_).copy(t0, count, rows, queries);
    std::fill_n(sums.data, rows * padded_, A{0});
    RunningRow<A> state[kQueries];
    const std::int64_t end = keys_.end(last - 1);
    for (std::int64_t s0 = rounded_down(keys_.first(t0), kKeys); s0 < end; s0 += kKeys) {
      add_tile(a, t0, last, s0, state);
    }
    T* const y = op_.y.head(b_, a, width_);
    for (std::int64_t i = 0; i < count; ++i) {
      const A sum = total<A>(state[i].sum);
      const A lse = state[i].max + std::log(sum);  // of no key: −∞
      write(sums.row(i), sum == 0 ? A{0} : 1 / sum, width_, false, y + (t0 + i) * op_.y.stride());
      if (op_.lse.present()) op_.lse(b_, a, t0 + i) = lse;
      if (op_.weights.present()) write_weights(a, t0 + i, queries.row(rounded_down(i, kRows)), lse);
    }
  }

  void add_tile(std::int64_t a, std::int64_t t0, std::int64_t last, std::int64_t s0,
                RunningRow<A>* state) {
    const Matrix<Number> queries{memory_.queries.take(kQueries * padded_), padded_};
    const Matrix<A> scores{memory_.scores.take(kQueries * kKeys), kKeys},
        sums{memory_.sums.take(kQueries * padded_), padded_};
    const auto columns = [&](std::int64_t t) {
      return keys_.of_rows(t, std::min(t + kRows, last), {s0, s0 + kKeys});
    };
    for (std::int64_t panel = s0; panel < s0 + kKeys; panel += kPanel) {
      for (std::int64_t t = t0; t < last; t += kRows) {
        const Columns c = columns(t);
        if (panel < c.begin || panel >= c.end) continue;
        score(queries.row(t - t0), panel, {scores.row(t - t0) + (panel - s0), kKeys});
      }
    }
    for (std::int64_t t = t0; t < last; t += kRows) {
      const Columns c = columns(t);
      if (c.empty()) continue;
      if (op_.bias.present()) {
        for (std::int64_t i = t; i < std::min(t + kRows, last); ++i) {
          const Columns seen{std::max(keys_.first(i), c.begin) - s0,
                             std::min(keys_.end(i), c.end) - s0};
          add_bias(bias_of(op_.bias, a, i) + s0, seen, factor_, scores.row(i - t0));
        }
      }
      for (std::int64_t i = t; i < std::min(t + kRows, last); ++i) {
        weigh(a, i, s0, c, scores.row(i - t0), state[i - t0], sums.row(i - t0));
      }
      const std::int64_t depth = c.end - c.begin;
      memory_.products.add(
          memory_.products.left({scores.row(t - t0) + (c.begin - s0), kKeys}, depth),
          {values_ + (c.begin - first_) / kPack * padded_, padded_}, depth, padded_,
          {sums.row(t - t0), padded_});
    }
  }

  /// The products of kRows queries with a panel of keys, without their scale.
  void score(const Number* queries, std::int64_t panel, const Matrix<A>& to) const {
    memory_.products.multiply({queries, padded_, 1}, panels_ + (panel - first_) * padded_ / kPack,
                              rounded_up(width_, Products::kDepth), to);
  }

  /// Scores of query t become exp(z − max); the sums so far are scaled to the new maximum.
  void weigh(std::int64_t a, std::int64_t t, std::int64_t s0, const Columns& c, A* scores,
             RunningRow<A>& state, A* sums) {
    const A hidden = -std::copysign(std::numeric_limits<A>::infinity(), scale_);
    const std::int64_t begin = std::clamp(keys_.first(t), c.begin, c.end),
                       end = std::clamp(keys_.end(t), begin, c.end);
    std::fill(scores + (c.begin - s0), scores + (begin - s0), hidden);
    std::fill(scores + (end - s0), scores + (c.end - s0), hidden);
    Vector<A> top = Vector<A>{} + state.max;
    for (std::int64_t s = c.begin - s0; s < c.end - s0; s += kLanes) {
      const Vector<A> z = load(scores + s) * scale_;
      top = z > top ? z : top;
    }
    const A before = state.max;
    state.max = largest<A>(top);
    const A shift = state.shift();
    if (state.max != before) {
      const Vector<A> factor = exp_of<A>(Vector<A>{} + (before - shift));
      state.sum *= factor;
      for (std::int64_t d = 0; d < padded_; d += kLanes)
        store<A>(load(sums + d) * factor, sums + d);
    }
    for (std::int64_t s = c.begin - s0; s < c.end - s0; s += kLanes) {
      const Vector<A> weight = exp_of<A>(load(scores + s) * scale_ - shift);
      state.sum += weight;
      store<A>(weight, scores + s);
    }
    if (op_.drop_probability > 0) {
      const std::int64_t element = ((b_ * op_.rule.heads + a) * op_.q.steps() + t) * op_.k.steps();
      mask_.apply(element + s0, begin - s0, end - s0, scores);
    }
  }

  /// Of query t, among the kRows rows at `queries`.
  void write_weights(std::int64_t a, std::int64_t t, const Number* queries, A lse) {
    A* const to = &op_.weights(b_, a, t, 0);
    std::fill_n(to, op_.k.steps(), A{0});
    if (lse == -std::numeric_limits<A>::infinity()) return;
    alignas(64) A scores[kRows * kPanel];
    A* const own = scores + t % kRows * kPanel;
    const std::int64_t begin = keys_.first(t), end = keys_.end(t);
    for (std::int64_t panel = rounded_down(begin, kPanel); panel < end; panel += kPanel) {
      const Columns c{std::max(begin - panel, std::int64_t{0}), std::min(end - panel, kPanel)};
      score(queries, panel, {scores, kPanel});
      if (op_.bias.present()) add_bias(bias_of(op_.bias, a, t) + panel, c, factor_, own);
      for (std::int64_t s = c.begin; s < c.end; ++s) {
        to[panel + s] = cpu_exp(scale_ * own[s] - lse);
      }
    }
  }

  const AttentionForward<T>& op_;
  std::int64_t b_, group_;
  Keys keys_;
  std::int64_t width_, padded_;
  A factor_;  ///< of q·k
  A scale_;   ///< what add_bias() has left of it
  WeightMask mask_;
  ForwardMemory<A, Products>& memory_;
  std::int64_t first_ = 0;  ///< the key that is first in the copies
  const Packed* values_ = nullptr;
  Packed* panels_ = nullptr;
};

}  // namespace carousel::attention_cpu
