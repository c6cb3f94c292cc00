#pragma once

#include <limits>

#include "kernels/attention/attention.h"
#include "kernels/attention/cpu_products.h"

// The backward pass on the CPU. A task has one row of the batch and the heads that share keys. Outside
// it goes through tiles of keys, whose d_k and d_v it sums while they are in the cache, and inside
// through the heads and tiles of queries, to whose d_q every tile of keys adds: both in one order.
namespace carousel::attention_cpu {

inline constexpr std::int64_t kTile = 64;  ///< queries, and keys, of a tile of scores

/// What a thread keeps between tasks.
template <class A, class Products>
struct BackwardMemory {
  Products products;
  Numbers<typename Products::Number> queries, d_y;  ///< of all queries of the heads
  Numbers<typename Products::Packed> packed_queries, packed_d_y;
  Numbers<A> d_q, delta;
  Numbers<typename Products::Number> keys, values;  ///< of a tile
  Numbers<typename Products::Packed> packed_keys, columns;
  Numbers<A> d_k, d_v, scores, d_scores;
};

template <class T, class Products>
class BackwardTask {
  using A = Accumulator<T>;
  using Number = typename Products::Number;
  using Packed = typename Products::Packed;
  static constexpr std::int64_t kRows = Products::kRows, kPack = Products::kPack;

 public:
  BackwardTask(const AttentionBackward<T>& op, std::int64_t b, std::int64_t group,
               BackwardMemory<A, Products>& memory)
      : op_(op),
        b_(b),
        group_(group),
        share_(op.rule.heads / op.rule.groups()),
        queries_(op.q.steps()),
        room_(rounded_up(queries_, kRows)),
        keys_{op.rule, steps_of(op.length, b, op.k.steps())},
        width_(op.rule.head_width),
        padded_(rounded_up(width_, Products::kUnit)),
        scale_(static_cast<A>(op.rule.factor())),
        mask_(op),
        memory_(memory),
        q_{memory.queries.take(share_ * room_ * padded_), padded_},
        d_y_{memory.d_y.take(share_ * room_ * padded_), padded_},
        d_q_{memory.d_q.take(share_ * room_ * padded_), padded_},
        delta_(memory.delta.take(share_ * room_)),
        k_{memory.keys.take(kTile * padded_), padded_},
        v_{memory.values.take(kTile * padded_), padded_},
        columns_(memory.columns.take(2 * kTile * padded_ / kPack)),
        d_k_{memory.d_k.take(kTile * padded_), padded_},
        d_v_{memory.d_v.take(kTile * padded_), padded_},
        scores_{memory.scores.take(kTile * kTile), kTile},
        d_scores_{memory.d_scores.take(kTile * kTile), kTile} {}

  void run() {
    for (std::int64_t h = 0; h < share_; ++h) copy_queries(h);
    packed_q_ = memory_.products.pack_rows(q_, share_ * room_, memory_.packed_queries);
    packed_d_y_ = memory_.products.pack_rows(d_y_, share_ * room_, memory_.packed_d_y);
    for (std::int64_t s0 = 0; s0 < op_.k.steps(); s0 += kTile) {
      const std::int64_t count = std::min(kTile, op_.k.steps() - s0);
      std::fill_n(d_k_.data, rounded_up(count, kPanel) * padded_, A{0});
      std::fill_n(d_v_.data, rounded_up(count, kPanel) * padded_, A{0});
      if (s0 < keys_.count) sum_tile(s0);
      write_tile(op_.d_k, d_k_, scale_, s0, count);
      write_tile(op_.d_v, d_v_, A{1}, s0, count);
    }
    if (!op_.d_q.present()) return;
    for (std::int64_t h = 0; h < share_; ++h) {
      T* const to = op_.d_q.rows.head(b_, head(h), width_);
      for (std::int64_t t = 0; t < queries_; ++t) {
        write(d_q_.row(h * room_ + t), scale_, width_, op_.d_q.accumulate,
              to + t * op_.d_q.rows.stride());
      }
    }
  }

 private:
  std::int64_t head(std::int64_t h) const { return group_ * share_ + h; }

  void copy_queries(std::int64_t h) {
    const HeadSteps<T> d_y(op_.d_y, b_, head(h), width_), y(op_.y, b_, head(h), width_);
    HeadSteps<T>(op_.q, b_, head(h), width_)
        .template copy<Number>(0, queries_, room_, {q_.row(h * room_), padded_});
    d_y.template copy<Number>(0, queries_, room_, {d_y_.row(h * room_), padded_});
    alignas(64) A y_row[kMostHeadWidth], d_y_row[kMostHeadWidth];
    for (std::int64_t t = 0; t < queries_; ++t) {
      y.template copy<A>(t, 1, 1, {y_row, padded_});
      d_y.template copy<A>(t, 1, 1, {d_y_row, padded_});
      Vector<A> sum{};
      for (std::int64_t d = 0; d < padded_; d += kLanes) sum += load(d_y_row + d) * load(y_row + d);
      delta_[h * room_ + t] = total<A>(sum);
    }
    std::fill_n(d_q_.row(h * room_), room_ * padded_, A{0});
  }

  void sum_tile(std::int64_t s0) {
    const std::int64_t count = std::min(kTile, keys_.count - s0), room = rounded_up(count, kPanel);
    HeadSteps<T>(op_.k, b_, group_, width_).copy(s0, count, room, k_);
    HeadSteps<T>(op_.v, b_, group_, width_).copy(s0, count, room, v_);
    memory_.products.pack_columns(k_, room, columns_);
    memory_.products.pack_columns(v_, room, columns_ + kTile * padded_ / kPack);
    packed_k_ = memory_.products.pack_rows(k_, room, memory_.packed_keys);
    for (std::int64_t h = 0; h < share_; ++h) {
      for (std::int64_t t0 = 0; t0 < queries_; t0 += kTile) add_queries(h, t0, s0);
    }
  }

  void add_queries(std::int64_t h, std::int64_t t0, std::int64_t s0) {
    const std::int64_t last = std::min(t0 + kTile, queries_), base = h * room_;
    bool any = false;
    for (std::int64_t t = t0; t < last; t += kRows) {
      const Columns c = keys_.of_rows(t, std::min(t + kRows, last), {s0, s0 + kTile});
      if (c.empty()) continue;
      any = true;
      for (std::int64_t panel = c.begin; panel < c.end; panel += kPanel) {
        const Packed* const columns = columns_ + (panel - s0) * padded_ / kPack;
        multiply(q_.row(base + t), columns, {scores_.row(t - t0) + (panel - s0), kTile});
        multiply(d_y_.row(base + t), columns + kTile * padded_ / kPack,
                 {d_scores_.row(t - t0) + (panel - s0), kTile});
      }
      for (std::int64_t i = t; i < t + kRows; ++i) differentiate(h, i, t0, s0, c);
      if (!op_.d_q.present()) continue;
      const std::int64_t depth = c.end - c.begin;
      memory_.products.add(
          memory_.products.left({d_scores_.row(t - t0) + (c.begin - s0), kTile}, depth),
          {packed_k_ + (c.begin - s0) / kPack * padded_, padded_}, depth, padded_,
          {d_q_.row(base + t), padded_});
    }
    if (any) add_to_keys(base, t0, last, s0);
  }

  void multiply(const Number* rows, const Packed* columns, const Matrix<A>& to) const {
    memory_.products.multiply({rows, padded_, 1}, columns, rounded_up(width_, Products::kDepth),
                              to);
  }

  /// Scores of query t become weights, and the gradients of weights those of scores.
  void differentiate(std::int64_t h, std::int64_t t, std::int64_t t0, std::int64_t s0,
                     const Columns& c) {
    A *const weights = scores_.row(t - t0), *const d = d_scores_.row(t - t0);
    // A query that has no score above −∞ is one that sees no key.
    const bool real =
        t < queries_ && op_.lse(b_, head(h), t) != -std::numeric_limits<A>::infinity();
    const std::int64_t begin = real ? std::clamp(keys_.first(t), c.begin, c.end) : c.end,
                       end = real ? std::clamp(keys_.end(t), begin, c.end) : c.end;
    const auto hide = [&](A* row) {
      std::fill(row + (c.begin - s0), row + (begin - s0), A{0});
      std::fill(row + (end - s0), row + (c.end - s0), A{0});
    };
    if (begin < end) {
      const A lse = op_.lse(b_, head(h), t), delta = delta_[h * room_ + t];
      alignas(64) A factor[kTile];
      const bool drops = op_.drop_probability > 0, biased = op_.bias.present();
      const A scale = biased ? A{1} : scale_;
      if (biased) {
        add_bias(bias_of(op_.bias, head(h), t) + s0, {begin - s0, end - s0}, scale_, weights);
      }
      if (drops) {
        const std::int64_t row = (b_ * op_.rule.heads + head(h)) * queries_ + t;
        std::fill_n(factor, kTile, A{1});
        mask_.apply(row * op_.k.steps() + s0, begin - s0, end - s0, factor);
      }
      for (std::int64_t s = c.begin - s0; s < c.end - s0; s += kLanes) {
        const Vector<A> weight = exp_of<A>(load(weights + s) * scale - lse);
        Vector<A> d_weight = load(d + s), used = weight;
        if (drops) {
          const Vector<A> kept = load(factor + s);
          d_weight *= kept;
          used *= kept;
        }
        store<A>(weight * (d_weight - delta), d + s);
        store<A>(used, weights + s);
      }
    }
    hide(weights);
    hide(d);
  }

  void add_to_keys(std::int64_t base, std::int64_t t0, std::int64_t last, std::int64_t s0) {
    const std::int64_t count = std::min(kTile, keys_.count - s0);
    for (std::int64_t s = s0; s < s0 + count; s += kRows) {
      // The rows whose columns have been computed: those of blocks that see one of these keys.
      const std::int64_t last_key = std::min(s + kRows, s0 + count) - 1;
      std::int64_t begin = t0, end = rounded_up(last - t0, kRows) + t0;
      while (begin < end && keys_.end(std::min(begin + kRows, queries_) - 1) <= s) begin += kRows;
      while (begin < end && keys_.first(end - kRows) > last_key) end -= kRows;
      if (begin == end) continue;
      const auto add = [&](const Matrix<A>& factors, const Packed* rows, const Matrix<A>& to) {
        memory_.products.add(
            memory_.products.left_columns({factors.data + (s - s0), kTile}, begin - t0, end - t0),
            {rows + (base + begin) / kPack * padded_, padded_}, end - begin, padded_,
            {to.row(s - s0), padded_});
      };
      if (op_.d_v.present()) add(scores_, packed_d_y_, d_v_);
      if (op_.d_k.present()) add(d_scores_, packed_q_, d_k_);
    }
  }

  void write_tile(const HeadGradient<T>& d, const Matrix<A>& sums, A factor, std::int64_t s0,
                  std::int64_t count) const {
    if (!d.present()) return;
    T* const to = d.rows.head(b_, group_, width_);
    for (std::int64_t s = 0; s < count; ++s) {
      write(sums.row(s), factor, width_, d.accumulate, to + (s0 + s) * d.rows.stride());
    }
  }

  const AttentionBackward<T>& op_;
  std::int64_t b_, group_, share_, queries_, room_;
  Keys keys_;
  std::int64_t width_, padded_;
  A scale_;
  WeightMask mask_;
  BackwardMemory<A, Products>& memory_;
  Matrix<Number> q_, d_y_;
  const Packed *packed_q_ = nullptr, *packed_d_y_ = nullptr;
  Matrix<A> d_q_;
  A* delta_;
  Matrix<Number> k_, v_;
  Packed* columns_;  ///< of keys, then of values
  const Packed* packed_k_ = nullptr;
  Matrix<A> d_k_, d_v_, scores_, d_scores_;
};

}  // namespace carousel::attention_cpu
