#include "kernels/attention/attention.h"

#include <fmt/format.h>

#include "kernels/common/check.h"

namespace carousel {
namespace {

void check_bias(const std::array<std::int64_t, 3>& got, const std::array<std::int64_t, 3>& want) {
  if ((got[0] == 1 || got[0] == want[0]) && got[1] == want[1] && got[2] == want[2]) return;
  throw ShapeError(
      fmt::format("attention: bias is [{}, {}, {}], expected [{}, {}, {}] or [1, {}, {}]", got[0],
                  got[1], got[2], want[0], want[1], want[2], want[1], want[2]));
}

/// What the passes have in common.
template <class Op>
void check_inputs(const Op& op) {
  check_rule("attention", op.rule);
  const std::int64_t batch = op.q.batch(), wide = op.rule.heads * op.rule.head_width,
                     narrow = op.rule.groups() * op.rule.head_width;
  expect_heads("attention: q", op.q.rows.extent, op.q.first, {op.q.steps(), batch, wide});
  expect_heads("attention: k", op.k.rows.extent, op.k.first, {op.k.steps(), batch, narrow});
  expect_heads("attention: v", op.v.rows.extent, op.v.first, {op.k.steps(), batch, narrow});
  expect_heads("attention: y", op.y.rows.extent, op.y.first, {op.q.steps(), batch, wide});
  if (op.length.present()) expect_extent("attention: lengths", op.length.extent[0], batch);
  if (op.bias.present()) check_bias(op.bias.extent, {op.rule.heads, op.q.steps(), op.k.steps()});
  if (!(op.drop_probability >= 0 && op.drop_probability < 1)) {
    throw ConfigError(fmt::format(
        "attention: drop_probability is {}, expected 0 or more and below 1", op.drop_probability));
  }
  if (op.drop_probability > 0) {
    expect_present("attention: step of the random source", op.random.step.present());
  }
}

template <class Op>
void check_lse(const Op& op) {
  expect_extent("attention: rows of lse", op.lse.extent[0], op.q.batch());
  expect_extent("attention: heads of lse", op.lse.extent[1], op.rule.heads);
  expect_extent("attention: queries of lse", op.lse.extent[2], op.q.steps());
}

template <class T>
void check_gradient(const char* what, const HeadGradient<T>& d, const HeadRows<const T>& like,
                    std::int64_t columns) {
  if (!d.present()) return;
  expect_heads(what, d.rows.rows.extent, d.rows.first, {like.steps(), like.batch(), columns});
}

}  // namespace

void check_rule(const char* op, const AttentionRule& rule) {
  const auto refuse = [op](const std::string& text) {
    throw ConfigError(fmt::format("{}: {}", op, text));
  };
  if (rule.heads < 1) refuse(fmt::format("heads is {}, expected at least 1", rule.heads));
  if (rule.kv_heads < 0 || rule.heads % rule.groups() != 0) {
    refuse(
        fmt::format("kv_heads is {}, expected a divisor of heads, {}", rule.kv_heads, rule.heads));
  }
  if (rule.window < 0 || (rule.window > 0 && !rule.causal)) {
    refuse(fmt::format("window is {}, expected {}", rule.window,
                       rule.causal ? "0 or more" : "0, for attention is not causal"));
  }
  if (!std::isfinite(rule.scale)) {
    refuse(fmt::format("scale is {}, expected a finite number", rule.scale));
  }
  if (rule.head_width < 1 || rule.head_width > kMostHeadWidth) {
    throw ShapeError(
        fmt::format("{}: head width is {}, expected 1 to {}", op, rule.head_width, kMostHeadWidth));
  }
}

void expect_heads(const std::string& what, const std::array<std::int64_t, 3>& extent,
                  std::int64_t first, const std::array<std::int64_t, 3>& want) {
  expect_extent((what + " steps").c_str(), extent[0], want[0]);
  expect_extent((what + " rows").c_str(), extent[1], want[1]);
  expect_at_least((what + " first column").c_str(), first, 0);
  expect_at_least((what + " columns").c_str(), extent[2], first + want[2]);
}

template <class T>
void AttentionForward<T>::check() const {
  check_inputs(*this);
  if (lse.present()) check_lse(*this);
  if (!weights.present()) return;
  expect_extent("attention: rows of weights", weights.extent[0], q.batch());
  expect_extent("attention: heads of weights", weights.extent[1], rule.heads);
  expect_extent("attention: queries of weights", weights.extent[2], q.steps());
  expect_extent("attention: keys of weights", weights.extent[3], k.steps());
}

template <class T>
void AttentionBackward<T>::check() const {
  check_inputs(*this);
  check_lse(*this);
  const std::int64_t wide = rule.heads * rule.head_width, narrow = rule.groups() * rule.head_width;
  expect_heads("attention: d_y", d_y.rows.extent, d_y.first, {q.steps(), q.batch(), wide});
  check_gradient("attention: d_q", d_q, q, wide);
  check_gradient("attention: d_k", d_k, k, narrow);
  check_gradient("attention: d_v", d_v, v, narrow);
}

template void AttentionForward<float>::check() const;
template void AttentionForward<bf16>::check() const;
template void AttentionForward<double>::check() const;
template void AttentionBackward<float>::check() const;
template void AttentionBackward<bf16>::check() const;
template void AttentionBackward<double>::check() const;

}  // namespace carousel
