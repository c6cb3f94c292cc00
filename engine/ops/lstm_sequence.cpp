#include "kernels/lstm_sequence/lstm_sequence.h"

#include "engine/ops.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// What the backward rule keeps.
struct Saved {
  Var x;
  LstmParameters parameters;
  LstmState initial;
  Tensor reset;
  Var gates, c, h, h_last, c_last;
};

/// The value of an input that may be absent, as an op takes it.
template <class T, int R>
View<const T, R> view_of(const Var& input) {
  return input.present() ? input.value().view<T, R>() : View<const T, R>{};
}

GradientTarget gradient_of(const Var& input) {
  return input.present() ? input.gradient() : GradientTarget{};
}

template <class T>
void forward(const Saved& s) {
  using Acc = Accumulator<T>;
  s.x.tape().run_with_scratch(
      LstmSequenceForward<T>{.x = view_of<T, 3>(s.x),
                             .weight_ih = view_of<T, 2>(s.parameters.weight_ih),
                             .weight_hh = view_of<T, 2>(s.parameters.weight_hh),
                             .bias_ih = view_of<Acc, 1>(s.parameters.bias_ih),
                             .bias_hh = view_of<Acc, 1>(s.parameters.bias_hh),
                             .h0 = view_of<T, 2>(s.initial.h),
                             .c0 = view_of<Acc, 2>(s.initial.c),
                             .reset = s.reset.view<std::int32_t, 2>(),
                             .h = s.h.value().mutable_view<T, 3>(),
                             .c = s.c.value().mutable_view<Acc, 3>(),
                             .gates = s.gates.value().mutable_view<T, 3>(),
                             .tf32 = s.x.tape().tf32()});
}

template <class T>
void backward(const Saved& s) {
  using Acc = Accumulator<T>;
  const GradientTarget d_x = gradient_of(s.x);
  const GradientTarget d_weight_ih = gradient_of(s.parameters.weight_ih);
  const GradientTarget d_weight_hh = gradient_of(s.parameters.weight_hh);
  const GradientTarget d_bias_ih = gradient_of(s.parameters.bias_ih);
  const GradientTarget d_bias_hh = gradient_of(s.parameters.bias_hh);
  const GradientTarget d_h0 = gradient_of(s.initial.h), d_c0 = gradient_of(s.initial.c);
  s.x.tape().run_with_scratch(
      LstmSequenceBackward<T>{.d_h = s.h.d().view<T, 3>(),
                              .d_h_last = s.h_last.d().view<T, 2>(),
                              .d_c_last = s.c_last.d().view<Acc, 2>(),
                              .x = view_of<T, 3>(s.x),
                              .weight_ih = view_of<T, 2>(s.parameters.weight_ih),
                              .weight_hh = view_of<T, 2>(s.parameters.weight_hh),
                              .h0 = view_of<T, 2>(s.initial.h),
                              .c0 = view_of<Acc, 2>(s.initial.c),
                              .reset = s.reset.view<std::int32_t, 2>(),
                              .h = s.h.value().view<T, 3>(),
                              .c = s.c.value().view<Acc, 3>(),
                              .gates = s.gates.gradient().tensor.mutable_view<T, 3>(),
                              .d_x = d_x.tensor.mutable_view<T, 3>(),
                              .d_weight_ih = d_weight_ih.tensor.mutable_view<Acc, 2>(),
                              .d_weight_hh = d_weight_hh.tensor.mutable_view<Acc, 2>(),
                              .d_bias_ih = d_bias_ih.tensor.mutable_view<Acc, 1>(),
                              .d_bias_hh = d_bias_hh.tensor.mutable_view<Acc, 1>(),
                              .d_h0 = d_h0.tensor.mutable_view<T, 2>(),
                              .d_c0 = d_c0.tensor.mutable_view<Acc, 2>(),
                              .accumulate_d_x = d_x.accumulate,
                              .accumulate_d_weight_ih = d_weight_ih.accumulate,
                              .accumulate_d_weight_hh = d_weight_hh.accumulate,
                              .accumulate_d_bias_ih = d_bias_ih.accumulate,
                              .accumulate_d_bias_hh = d_bias_hh.accumulate,
                              .accumulate_d_h0 = d_h0.accumulate,
                              .accumulate_d_c0 = d_c0.accumulate,
                              .tf32 = s.x.tape().tf32()});
}

}  // namespace

LstmOutput lstm_sequence(Var x, const LstmParameters& parameters, const LstmState& initial,
                         const Tensor& reset) {
  if (x.shape().rank() != 3 || x.shape()[0] == 0) {
    throw ShapeError("lstm_sequence: x is " + x.shape().text() + ", expected [T, B, E] with T > 0");
  }
  Tape& tape = x.tape();
  const std::int64_t steps = x.shape()[0], batch = x.shape()[1];
  const std::int64_t width = parameters.weight_hh.shape().back();
  const DType dtype = x.dtype(), wide = dtype == DType::f64 ? DType::f64 : DType::f32;
  const Tensor h = tape.tensor({steps, batch, width}, dtype);
  const Tensor c = tape.tensor({steps, batch, width}, wide);
  const std::initializer_list<Var> inputs{x,
                                          parameters.weight_ih,
                                          parameters.weight_hh,
                                          parameters.bias_ih,
                                          parameters.bias_hh,
                                          initial.h,
                                          initial.c};
  const auto last = [&](const Tensor& sequence) {
    return tape.output(sequence.slice(steps - 1, 1).reshaped({batch, width}), inputs);
  };
  // On the tape in the order in which a step computes them.
  const Saved saved{
      .x = x,
      .parameters = parameters,
      .initial = initial,
      .reset = reset,
      .gates = tape.overwritten(tape.tensor({steps, batch, 4 * width}, dtype), inputs),
      .c = tape.output(c, inputs),
      .h = tape.output(h, inputs),
      .h_last = last(h),
      .c_last = last(c)};
  visit_float(dtype, [&]<class T>(std::type_identity<T>) {
    forward<T>(saved);
    tape.on_backward({saved.h, saved.h_last, saved.c_last}, [saved] { backward<T>(saved); });
  });
  return {.h = saved.h,
          .h_last = saved.h_last,
          .c_last = saved.c_last,
          .c = saved.c,
          .gates = saved.gates};
}

void label(const LstmOutput& layer, const std::string& name) {
  Tape& tape = layer.h.tape();
  Label like{.name = name, .forward = kLstmForwardTolerance, .backward = kLstmBackwardTolerance};
  const auto set = [&](const Var& var, const char* part, std::vector<std::string> blocks = {}) {
    like.part = part;
    like.blocks = std::move(blocks);
    tape.label(var, like);
  };
  set(layer.gates, "gate", {"i", "f", "g", "o"});
  set(layer.c, "cell state");
  set(layer.h, "hidden state");
}

}  // namespace carousel
