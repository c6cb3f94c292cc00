#include "kernels/attention/attention.h"

#include "engine/ops.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// Queries, keys and values: values of a tape and the columns where their heads begin.
struct Inputs {
  Var q, k, v;
  std::int64_t first_k = 0, first_v = 0;  ///< of q: 0
};

std::int64_t key_heads(const AttentionOptions& options) {
  return options.kv_heads == 0 ? options.heads : options.kv_heads;
}

AttentionRule rule_of(const AttentionOptions& options, std::int64_t head_width) {
  return {.heads = options.heads,
          .kv_heads = options.kv_heads,
          .head_width = head_width,
          .causal = options.causal,
          .window = options.window,
          .scale = options.scale};
}

/// The width of one of `heads` heads side by side in a row of x.
std::int64_t head_width(const char* what, const Var& x, std::int64_t heads) {
  if (x.shape().rank() != 3) {
    throw ShapeError(std::string("attention: ") + what + " is " + x.shape().text() +
                     ", expected [T, B, heads·D]");
  }
  if (heads < 1 || x.shape().back() % heads != 0) {
    throw ShapeError(std::string("attention: columns of ") + what + " are " +
                     std::to_string(x.shape().back()) + ", expected a multiple of the heads, " +
                     std::to_string(heads));
  }
  return x.shape().back() / heads;
}

template <class Op>
void set_options(Op& op, const AttentionOptions& options, std::int64_t width, const Tape& tape) {
  op.rule = rule_of(options, width);
  op.length = options.lengths.view<std::int32_t, 1>();
  op.bias = options.bias.view<std::remove_cvref_t<decltype(*op.bias.data)>, 3>();
  op.drop_probability = options.drop_probability;
  op.random = options.random;
  op.tf32 = tape.tf32();
}

template <class T>
HeadRows<const T> heads_of(const Var& x, std::int64_t first = 0) {
  return {x.value().view<T, 3>(), first};
}
template <class T>
HeadGradient<T> gradient_at(const GradientTarget& target, std::int64_t first) {
  return {{target.tensor.mutable_view<T, 3>(), first}, target.accumulate};
}

struct Saved {
  Inputs in;
  AttentionOptions options;
  std::int64_t width;
  Tensor lse;
};

void backward(const Saved& s, const Var& y) {
  const auto& [q, k, v, first_k, first_v] = s.in;
  // In the order in which the op writes them, should two be one value. Side by side they are one
  // tensor, and each writes columns of its own.
  const bool packed = first_k > 0;
  const GradientTarget d_k = k.gradient(), d_v = packed ? d_k : v.gradient(),
                       d_q = packed ? d_k : q.gradient();
  Tape& tape = y.tape();
  visit_float(y.dtype(), [&]<class T>(std::type_identity<T>) {
    AttentionBackward<T> op{.q = heads_of<T>(q),
                            .k = heads_of<T>(k, first_k),
                            .v = heads_of<T>(v, first_v),
                            .rule = {},
                            .y = heads_of<T>(y),
                            .lse = s.lse.view<Accumulator<T>, 3>(),
                            .d_y = {y.d().view<T, 3>()},
                            .d_q = gradient_at<T>(d_q, 0),
                            .d_k = gradient_at<T>(d_k, first_k),
                            .d_v = gradient_at<T>(d_v, first_v)};
    set_options(op, s.options, s.width, tape);
    tape.run_with_scratch(op);
  });
}

Var record(const Inputs& in, const AttentionOptions& options, std::int64_t width) {
  Tape& tape = in.q.tape();
  const Shape rows{in.q.shape()[0], in.q.shape()[1], options.heads * width};
  const DType sums = in.q.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor y = tape.tensor(rows, in.q.dtype());
  const Tensor lse =
      tape.recording() ? tape.tensor({rows[1], options.heads, rows[0]}, sums) : Tensor{};
  visit_float(in.q.dtype(), [&]<class T>(std::type_identity<T>) {
    AttentionForward<T> op{.q = heads_of<T>(in.q),
                           .k = heads_of<T>(in.k, in.first_k),
                           .v = heads_of<T>(in.v, in.first_v),
                           .rule = {},
                           .y = {y.mutable_view<T, 3>()},
                           .lse = lse.mutable_view<Accumulator<T>, 3>()};
    set_options(op, options, width, tape);
    run(tape.device(), op);
  });
  const Var result = tape.output(y, {in.q, in.k, in.v});
  tape.on_backward({result},
                   [saved = Saved{in, options, width, lse}, result] { backward(saved, result); });
  tape.label(result, {.part = "attention",
                      .forward = kAttentionForwardTolerance,
                      .backward = kAttentionBackwardTolerance});
  return result;
}

Tensor weights_of(const Inputs& in, const AttentionOptions& options, std::int64_t width) {
  Tape& tape = in.q.tape();
  const std::int64_t Tq = in.q.shape()[0], B = in.q.shape()[1];
  const DType sums = in.q.dtype() == DType::f64 ? DType::f64 : DType::f32;
  const Tensor weights = tape.tensor({B, options.heads, Tq, in.k.shape()[0]}, sums);
  const Tensor y = tape.tensor({Tq, B, options.heads * width}, in.q.dtype());
  visit_float(in.q.dtype(), [&]<class T>(std::type_identity<T>) {
    AttentionForward<T> op{.q = heads_of<T>(in.q),
                           .k = heads_of<T>(in.k, in.first_k),
                           .v = heads_of<T>(in.v, in.first_v),
                           .rule = {},
                           .y = {y.mutable_view<T, 3>()},
                           .weights = weights.mutable_view<Accumulator<T>, 4>()};
    set_options(op, options, width, tape);
    op.drop_probability = 0;
    run(tape.device(), op);
  });
  return weights;
}

/// Queries, keys and values side by side.
Inputs parts_of(Var qkv, const AttentionOptions& options, std::int64_t width) {
  return {.q = qkv,
          .k = qkv,
          .v = qkv,
          .first_k = options.heads * width,
          .first_v = (options.heads + key_heads(options)) * width};
}

}  // namespace

Var attention(Var q, Var k, Var v, const AttentionOptions& options) {
  const std::int64_t width = head_width("q", q, options.heads);
  return record({q, k, v}, options, width);
}

Var self_attention(Var qkv, const AttentionOptions& options) {
  const std::int64_t width = head_width("qkv", qkv, options.heads + 2 * key_heads(options));
  return record(parts_of(qkv, options, width), options, width);
}

Tensor attention_weights(Var q, Var k, const AttentionOptions& options) {
  return weights_of({.q = q, .k = k, .v = k}, options, head_width("q", q, options.heads));
}

Tensor self_attention_weights(Var qkv, const AttentionOptions& options) {
  const std::int64_t width = head_width("qkv", qkv, options.heads + 2 * key_heads(options));
  return weights_of(parts_of(qkv, options, width), options, width);
}

}  // namespace carousel
