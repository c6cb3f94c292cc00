#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/attention/attention.h"
#include "tests/reference/attention.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"

// A problem of attention, what an op makes of it, and what the oracle does.
namespace carousel::test {

struct AttentionProblem {
  std::size_t queries = 0, keys = 0, batch = 1;
  AttentionRule rule{};
  std::vector<double> q{}, k{}, v{}, d_y{};  ///< [T, B, heads·D]
  std::vector<std::int32_t> length{};        ///< empty: absent
  std::size_t bias_heads = 0;                ///< 0: absent
  std::vector<double> bias{};                ///< [bias_heads, Tq, Tk]
  float drop_probability = 0;
  bool accumulate = false, tf32 = false;
  std::vector<double> before_q{}, before_k{}, before_v{};  ///< what is added to

  std::size_t wide() const { return static_cast<std::size_t>(rule.heads * rule.head_width); }
  std::size_t narrow() const { return static_cast<std::size_t>(rule.groups() * rule.head_width); }
};

struct AttentionSolution {
  std::vector<double> y{}, lse{}, d_q{}, d_k{}, d_v{}, weights{};
};

inline constexpr std::uint64_t kAttentionSeed = 5;
inline constexpr std::int64_t kAttentionStep = 3;

/// Rows of heads on a device, in wider rows whose other columns hold NaN.
template <class T>
class HeadBuffer {
 public:
  static constexpr std::size_t kBefore = 3, kBehind = 2;

  HeadBuffer(const Device& device, std::size_t steps, std::size_t batch, std::size_t columns,
             const std::vector<double>& values = {})
      : steps_(steps),
        batch_(batch),
        columns_(columns),
        buffer_(device, stored<T>(widened(values))) {}

  operator HeadRows<const T>() const { return HeadRows<T>(*this); }
  operator HeadRows<T>() const {
    return {buffer_.view(steps_, batch_, kBefore + columns_ + kBehind), kBefore};
  }

  /// The values, and an error if another column was written.
  std::vector<double> read() const {
    const auto all = as_double(buffer_.read());
    const std::size_t row = kBefore + columns_ + kBehind;
    std::vector<double> values;
    for (std::size_t i = 0; i < all.size(); ++i) {
      const bool own = i % row >= kBefore && i % row < kBefore + columns_;
      if (own) {
        values.push_back(all[i]);
      } else {
        EXPECT_TRUE(std::isnan(all[i])) << "column " << i % row << " was written";
      }
    }
    return values;
  }

 private:
  std::vector<double> widened(const std::vector<double>& values) const {
    const std::size_t row = kBefore + columns_ + kBehind;
    std::vector<double> all(steps_ * batch_ * row, NAN);
    for (std::size_t i = 0; i < values.size(); ++i) {
      all[i / columns_ * row + kBefore + i % columns_] = values[i];
    }
    return all;
  }
  std::size_t steps_, batch_, columns_;
  Buffer<T> buffer_;
};

/// What passes share besides heads, on a device.
template <class T>
struct SharedInputs {
  Buffer<std::int32_t> length;
  Buffer<Accumulator<T>> bias;
  Buffer<std::int64_t> step;

  SharedInputs(const Device& device, const AttentionProblem& p)
      : length(device, p.length),
        bias(device, stored<Accumulator<T>>(p.bias)),
        step(device, std::vector<std::int64_t>{kAttentionStep}) {}
};

template <class Op, class T>
void set_attention(Op& op, const AttentionProblem& p, const SharedInputs<T>& inputs) {
  op.rule = p.rule;
  if (!p.length.empty()) op.length = inputs.length.view(p.batch);
  if (!p.bias.empty()) op.bias = inputs.bias.view(p.bias_heads, p.queries, p.keys);
  op.drop_probability = p.drop_probability;
  op.random = {.seed = kAttentionSeed, .stream = 2, .step = inputs.step.view(1)};
  op.tf32 = p.tf32;
}

template <class T>
AttentionSolution solve(const Device& device, const AttentionProblem& p, bool weights = false) {
  using Acc = Accumulator<T>;
  const auto A = static_cast<std::size_t>(p.rule.heads);
  const std::size_t W = p.wide(), N = p.narrow();
  const HeadBuffer<T> q(device, p.queries, p.batch, W, p.q), k(device, p.keys, p.batch, N, p.k),
      v(device, p.keys, p.batch, N, p.v), d_y(device, p.queries, p.batch, W, p.d_y),
      y(device, p.queries, p.batch, W), d_q(device, p.queries, p.batch, W, p.before_q),
      d_k(device, p.keys, p.batch, N, p.before_k), d_v(device, p.keys, p.batch, N, p.before_v);
  const Buffer<Acc> lse(device, p.batch * A * p.queries),
      weight(device, weights ? p.batch * A * p.queries * p.keys : 0);
  const SharedInputs<T> inputs(device, p);
  AttentionForward<T> forward{
      .q = q, .k = k, .v = v, .rule = {}, .y = y, .lse = lse.view(p.batch, A, p.queries)};
  if (weights) forward.weights = weight.view(p.batch, A, p.queries, p.keys);
  set_attention(forward, p, inputs);
  run(device, forward);
  AttentionBackward<T> backward{.q = q,
                                .k = k,
                                .v = v,
                                .rule = {},
                                .y = y,
                                .lse = lse.view(p.batch, A, p.queries),
                                .d_y = d_y,
                                .d_q = {d_q, p.accumulate},
                                .d_k = {d_k, p.accumulate},
                                .d_v = {d_v, p.accumulate}};
  set_attention(backward, p, inputs);
  const auto scratch = give_scratch(device, backward);
  run(device, backward);
  return {y.read(),   as_double(lse.read()),   d_q.read(), d_k.read(),
          d_v.read(), as_double(weight.read())};
}

/// Head a of row b of [T, B, heads·D].
inline reference::Rows rows_of(const std::vector<double>& all, std::size_t steps, std::size_t batch,
                               std::size_t heads, std::size_t b, std::size_t a) {
  const std::size_t columns = steps == 0 ? 0 : all.size() / steps / batch, width = columns / heads;
  reference::Rows rows;
  for (std::size_t t = 0; t < steps; ++t) {
    const auto first =
        all.begin() + static_cast<std::ptrdiff_t>((t * batch + b) * columns + a * width);
    rows.emplace_back(first, first + static_cast<std::ptrdiff_t>(width));
  }
  return rows;
}

/// The keys that a query sees, as the contract says it.
inline bool sees(const AttentionProblem& p, std::size_t b, std::size_t t, std::size_t s) {
  if (!p.length.empty() && static_cast<std::int64_t>(s) >= p.length[b]) return false;
  if (!p.rule.causal) return true;
  return s <= t && (p.rule.window == 0 || s + static_cast<std::size_t>(p.rule.window) > t);
}

/// The bias of head a.
inline reference::Rows bias_rows(const AttentionProblem& p, std::size_t a) {
  reference::Rows rows;
  const std::size_t first = p.bias_heads == 1 ? 0 : a * p.queries;
  for (std::size_t t = 0; t < p.queries && !p.bias.empty(); ++t) {
    const auto row = p.bias.begin() + static_cast<std::ptrdiff_t>((first + t) * p.keys);
    rows.emplace_back(row, row + static_cast<std::ptrdiff_t>(p.keys));
  }
  return rows;
}

inline reference::AttentionHead oracle_head(const AttentionProblem& p, std::size_t b,
                                            std::size_t a) {
  const auto heads = static_cast<std::size_t>(p.rule.heads),
             groups = static_cast<std::size_t>(p.rule.groups()), group = a / (heads / groups);
  const RandomSource source{.seed = kAttentionSeed, .stream = 2};
  const double scale = p.rule.scale != 0 ? static_cast<double>(p.rule.scale)
                                         : 1 / std::sqrt(static_cast<double>(p.rule.head_width));
  return {.q = rows_of(p.q, p.queries, p.batch, heads, b, a),
          .k = rows_of(p.k, p.keys, p.batch, groups, b, group),
          .v = rows_of(p.v, p.keys, p.batch, groups, b, group),
          .scale = scale,
          .bias = bias_rows(p, a),
          .sees = [&p, b](std::size_t t, std::size_t s) { return sees(p, b, t, s); },
          .mask =
              [&p, source, b, a, heads](std::size_t t, std::size_t s) {
                if (p.drop_probability == 0) return 1.0;
                const std::size_t n = ((b * heads + a) * p.queries + t) * p.keys + s;
                const auto words = source.words(n / 4, kAttentionStep);
                const double u = static_cast<double>(words[n % 4] >> 8) * 0x1p-24;
                const auto drop = static_cast<double>(p.drop_probability);
                return u >= drop ? 1 / (1 - drop) : 0.0;
              }};
}

inline AttentionSolution oracle(const AttentionProblem& p) {
  const auto heads = static_cast<std::size_t>(p.rule.heads),
             groups = static_cast<std::size_t>(p.rule.groups()),
             width = static_cast<std::size_t>(p.rule.head_width);
  AttentionSolution s{.y = std::vector<double>(p.q.size()),
                      .d_q = p.before_q,
                      .d_k = p.before_k,
                      .d_v = p.before_v};
  s.d_q.resize(p.q.size()), s.d_k.resize(p.k.size()), s.d_v.resize(p.v.size());
  const auto add = [&](std::vector<double>& to, const reference::Rows& rows, std::size_t b,
                       std::size_t a, std::size_t of) {
    for (std::size_t t = 0; t < rows.size(); ++t) {
      for (std::size_t d = 0; d < width; ++d) {
        to[((t * p.batch + b) * of + a) * width + d] += rows[t][d];
      }
    }
  };
  for (std::size_t b = 0; b < p.batch; ++b) {
    for (std::size_t a = 0; a < heads; ++a) {
      const auto head = oracle_head(p, b, a);
      const auto d = head.backward(rows_of(p.d_y, p.queries, p.batch, heads, b, a));
      add(s.y, head.output(), b, a, heads);
      add(s.d_q, d.q, b, a, heads);
      add(s.d_k, d.k, b, a / (heads / groups), groups);
      add(s.d_v, d.v, b, a / (heads / groups), groups);
      const auto weights = head.weights();
      for (std::size_t t = 0; t < p.queries; ++t) {
        s.lse.push_back(head.lse(t));
        s.weights.insert(s.weights.end(), weights[t].begin(), weights[t].end());
      }
    }
  }
  return s;
}

/// Numbers in ±1, as T stores them.
template <class T>
std::vector<double> random_numbers(std::size_t count, std::mt19937& engine) {
  std::uniform_real_distribution<double> number(-1, 1);
  std::vector<double> values(count);
  for (double& v : values) v = number(engine);
  return as_double(stored<T>(values));
}

/// Numbers in ±1, and −∞ at every fifth place and for all keys of query 1; NaN where a rule hides the key.
template <class T>
std::vector<double> random_bias(const AttentionProblem& p, std::mt19937& engine) {
  std::vector<double> bias =
      random_numbers<Accumulator<T>>(p.bias_heads * p.queries * p.keys, engine);
  for (std::size_t i = 0; i < bias.size(); ++i) {
    const std::size_t t = i / p.keys % p.queries, s = i % p.keys;
    if (i % 5 == 3 || t == 1) bias[i] = -INFINITY;
    if (p.rule.causal && s > t) bias[i] = NAN;
  }
  return bias;
}

/// Fills in the inputs; with lengths, some of 0 and some beyond Tk, keys and values beyond are NaN.
template <class T>
AttentionProblem random_attention(AttentionProblem p, bool with_lengths = false) {
  std::mt19937 engine(static_cast<unsigned>(p.queries * 31 + p.keys * 7 + p.wide()));
  const std::size_t wide = p.queries * p.batch * p.wide(), narrow = p.keys * p.batch * p.narrow();
  p.q = random_numbers<T>(wide, engine), p.d_y = random_numbers<T>(wide, engine);
  p.k = random_numbers<T>(narrow, engine), p.v = random_numbers<T>(narrow, engine);
  if (p.accumulate) {
    p.before_q = random_numbers<T>(wide, engine);
    p.before_k = random_numbers<T>(narrow, engine);
    p.before_v = random_numbers<T>(narrow, engine);
  }
  p.bias = random_bias<T>(p, engine);
  if (!with_lengths) return p;
  const auto most = static_cast<std::int32_t>(p.keys);
  for (std::size_t b = 0; b < p.batch; ++b) {
    p.length.push_back(b % 3 == 0   ? most * 2 / 3
                       : b % 3 == 1 ? most + 2
                                    : -static_cast<std::int32_t>(b % 2));
    for (std::size_t s = 0; s < p.keys; ++s) {
      if (static_cast<std::int64_t>(s) < p.length[b]) continue;
      const auto first = static_cast<std::ptrdiff_t>((s * p.batch + b) * p.narrow());
      std::fill_n(p.k.begin() + first, p.narrow(), NAN);
      std::fill_n(p.v.begin() + first, p.narrow(), NAN);
    }
  }
  return p;
}

}  // namespace carousel::test
