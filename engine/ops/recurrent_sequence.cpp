#include "kernels/recurrent_sequence/recurrent_sequence.h"

#include <algorithm>

#include "engine/ops.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// What the backward rule keeps. States beyond the cell's are absent.
struct Saved {
  CellKind cell;
  Var x;
  RecurrentParameters parameters;
  std::array<Var, kMostStates> initial{};
  Tensor reset;
  RowRange rows;
  Var gates{};
  Tensor kept{};                                 ///< what the op calls `saved`
  std::array<Var, kMostStates> state{}, last{};  ///< h first
};

/// The value of an input that may be absent, as an op takes it.
template <class T, int R>
View<const T, R> view_of(const Var& input) {
  return input.present() ? input.value().view<T, R>() : View<const T, R>{};
}

template <class T, int R>
Gradient<T, R> gradient_of(const Var& input) {
  return input.present() ? input.gradient().as<T, R>() : Gradient<T, R>{};
}

/// What f gives for each state after h.
template <class F>
auto each_wide(const std::array<Var, kMostStates>& states, const F& f) {
  std::array<decltype(f(states[0])), kMostStates - 1> result{};
  for (std::size_t s = 1; s < states.size(); ++s) {
    if (states[s].present()) result[s - 1] = f(states[s]);
  }
  return result;
}

RowRangeView view_of(const RowRange& rows) {
  return {.begin = rows.begin.view<std::int32_t, 1>(), .end = rows.end.view<std::int32_t, 1>()};
}

template <class T>
void forward(const Saved& s) {
  using Acc = Accumulator<T>;
  RecurrentSequenceForward<T> op{
      .cell = s.cell,
      .x = view_of<T, 3>(s.x),
      .weight_ih = view_of<T, 2>(s.parameters.weight_ih),
      .weight_hh = view_of<T, 2>(s.parameters.weight_hh),
      .bias_ih = view_of<Acc, 1>(s.parameters.bias_ih),
      .bias_hh = view_of<Acc, 1>(s.parameters.bias_hh),
      .parameter = view_of<Acc, 2>(s.parameters.per_unit),
      .h0 = view_of<T, 2>(s.initial[0]),
      .state0 = each_wide(s.initial, [](const Var& v) { return view_of<Acc, 2>(v); }),
      .reset = s.reset.view<std::int32_t, 2>(),
      .rows = view_of(s.rows),
      .h = s.state[0].value().mutable_view<T, 3>(),
      .state = each_wide(s.state, [](const Var& v) { return v.value().mutable_view<Acc, 3>(); }),
      .gates = s.gates.value().mutable_view<T, 3>(),
      .saved = s.kept.mutable_view<T, 4>(),
      .tf32 = s.x.tape().tf32()};
  if (op.rows.present()) {  // else the final states are the last steps themselves
    op.h_last = s.last[0].value().mutable_view<T, 2>();
    op.state_last =
        each_wide(s.last, [](const Var& v) { return v.value().mutable_view<Acc, 2>(); });
  }
  s.x.tape().run_with_scratch(op);
}

template <class T>
void backward(const Saved& s) {
  using Acc = Accumulator<T>;
  s.x.tape().run_with_scratch(RecurrentSequenceBackward<T>{
      .cell = s.cell,
      .d_h = s.state[0].d().view<T, 3>(),
      .d_h_last = s.last[0].d().view<T, 2>(),
      .d_state_last = each_wide(s.last, [](const Var& v) { return v.d().view<Acc, 2>(); }),
      .x = view_of<T, 3>(s.x),
      .weight_ih = view_of<T, 2>(s.parameters.weight_ih),
      .weight_hh = view_of<T, 2>(s.parameters.weight_hh),
      .parameter = view_of<Acc, 2>(s.parameters.per_unit),
      .h0 = view_of<T, 2>(s.initial[0]),
      .state0 = each_wide(s.initial, [](const Var& v) { return view_of<Acc, 2>(v); }),
      .reset = s.reset.view<std::int32_t, 2>(),
      .rows = view_of(s.rows),
      .h = s.state[0].value().view<T, 3>(),
      .state = each_wide(s.state, [](const Var& v) { return v.value().view<Acc, 3>(); }),
      .gates = s.gates.gradient().tensor.mutable_view<T, 3>(),
      .saved = s.kept.mutable_view<T, 4>(),
      .d_x = gradient_of<T, 3>(s.x),
      .d_weight_ih = gradient_of<Acc, 2>(s.parameters.weight_ih),
      .d_weight_hh = gradient_of<Acc, 2>(s.parameters.weight_hh),
      .d_bias_ih = gradient_of<Acc, 1>(s.parameters.bias_ih),
      .d_bias_hh = gradient_of<Acc, 1>(s.parameters.bias_hh),
      .d_parameter = gradient_of<Acc, 2>(s.parameters.per_unit),
      .d_h0 = gradient_of<T, 2>(s.initial[0]),
      .d_state0 = each_wide(s.initial, [](const Var& v) { return gradient_of<Acc, 2>(v); }),
      .tf32 = s.x.tape().tf32()});
}

/// "lstm layer 0, gate i", "lstm layer 0, cell state", …
void label(Tape& tape, const Saved& s) {
  Label like{.name = tape.layer_name().empty() ? std::string(s.cell->name) : std::string(),
             .forward = kRecurrentForwardTolerance,
             .backward = kRecurrentBackwardTolerance};
  for (std::size_t k = 0; k < static_cast<std::size_t>(s.cell->states); ++k) {
    const std::string part(s.cell->state_names[k]);
    like.part = part;
    tape.label(s.state[k], like);
    const Var& initial = s.initial[k];
    if (!initial.present() || initial.needs_gradient()) continue;
    tape.label(initial, {.name = like.name, .part = "initial " + part, .axes = Axes::state});
  }
  like.part = "gate";
  for (const std::string_view gate : s.cell->gate_names) {
    if (!gate.empty()) like.blocks.emplace_back(gate);
  }
  tape.label(s.gates, like);
}

}  // namespace

RecurrentOutput recurrent_sequence(CellKind cell, Var x, const RecurrentParameters& parameters,
                                   std::span<const Var> initial, const Tensor& reset,
                                   const RowRange& rows) {
  if (x.shape().rank() != 3 || x.shape()[0] == 0) {
    throw ShapeError("recurrent_sequence: x is " + x.shape().text() +
                     ", expected [T, B, E] with T > 0");
  }
  const auto states = static_cast<std::size_t>(cell->states);
  if (initial.size() > states) {
    expect_extent("recurrent_sequence: initial states", std::ssize(initial), cell->states);
  }
  Tape& tape = x.tape();
  const std::int64_t steps = x.shape()[0], batch = x.shape()[1];
  const std::int64_t width = parameters.weight_ih.shape()[0] / cell->gates;
  const DType dtype = x.dtype(), wide = dtype == DType::f64 ? DType::f64 : DType::f32;
  Saved s{.cell = cell, .x = x, .parameters = parameters, .reset = reset, .rows = rows};
  std::copy(initial.begin(), initial.end(), s.initial.begin());
  const std::initializer_list<Var> inputs{x,
                                          parameters.weight_ih,
                                          parameters.weight_hh,
                                          parameters.bias_ih,
                                          parameters.bias_hh,
                                          parameters.per_unit,
                                          s.initial[0],
                                          s.initial[1],
                                          s.initial[2],
                                          s.initial[3]};
  static_assert(kMostStates == 4);
  // On the tape in the order in which a step computes them.
  s.gates = tape.overwritten(tape.tensor({steps, batch, cell->gates * width}, dtype), inputs);
  if (cell->saved() > 0) s.kept = tape.tensor({cell->saved(), steps, batch, width}, dtype);
  for (std::size_t k = states; k-- > 0;) {
    s.state[k] = tape.output(tape.tensor({steps, batch, width}, k == 0 ? dtype : wide), inputs);
  }
  for (std::size_t k = 0; k < states; ++k) {
    const Tensor& all = s.state[k].value();
    s.last[k] = tape.output(rows.present() ? tape.tensor({batch, width}, all.dtype())
                                           : all.slice(steps - 1, 1).reshaped({batch, width}),
                            inputs);
  }
  label(tape, s);
  visit_float(dtype, [&]<class T>(std::type_identity<T>) {
    forward<T>(s);
    tape.on_backward({s.state[0], s.last[0], s.last[1], s.last[2], s.last[3]},
                     [s] { backward<T>(s); });
  });
  return {.h = s.state[0], .last = {s.last.begin(), s.last.begin() + cell->states}};
}

}  // namespace carousel
