#include "kernels/recurrent_sequence/recurrent_sequence.h"

#include <algorithm>

#include "engine/ops.h"
#include "kernels/common/check.h"
#include "kernels/gradient_norm_penalty/gradient_norm_penalty.h"

namespace carousel {
namespace {

/// What the backward rule keeps. States beyond the cell's are absent.
struct Saved {
  CellKind cell;
  Var x;
  RecurrentParameters parameters;
  std::array<Var, kMostStates> initial{};
  RecurrentPath path;
  Var gates{};
  Tensor kept{}, normal{}, deviation{}, mask{};  ///< `kept` is what the op calls `saved`
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

/// A parameter of `count` vectors, one after the other.
template <class Acc>
View<const Acc, 2> vectors_of(const Var& parameter, std::int64_t count) {
  if (!parameter.present()) return {};
  const std::int64_t each = parameter.shape().size() / count;
  return parameter.value().reshaped({count, each}).view<Acc, 2>();
}
template <class Acc>
Gradient<Acc, 2> vector_gradients_of(const Var& parameter, std::int64_t count) {
  const GradientTarget d = parameter.present() ? parameter.gradient() : GradientTarget{};
  if (!d.tensor) return {};
  const std::int64_t each = d.tensor.size() / count;
  return {d.tensor.reshaped({count, each}).mutable_view<Acc, 2>(), d.accumulate};
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

/// What f gives for each place at which a sequence may start.
template <class F>
auto each_start(const Saved& s, const F& f) {
  std::array<decltype(f(s.x)), kMostStates> result{};
  for (std::size_t k = 0; k < result.size(); ++k) result[k] = f(s.parameters.start[k]);
  return result;
}

/// Bytes in a tensor of i32, for there is none of bytes.
View<std::uint8_t, 3> mask_view(const Saved& s) {
  if (!s.mask) return {};
  const Shape& gates = s.gates.shape();
  return {static_cast<std::uint8_t*>(s.mask.mutable_data()),
          {gates[0], gates[1], gates[2] / s.cell->gates}};
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
      .weight_hr = view_of<T, 2>(s.parameters.weight_hr),
      .bias_ih = view_of<Acc, 1>(s.parameters.bias_ih),
      .bias_hh = view_of<Acc, 1>(s.parameters.bias_hh),
      .gain = vectors_of<Acc>(s.parameters.gain, 2),
      .parameter = vectors_of<Acc>(s.parameters.per_unit, s.cell->parameters),
      .start = each_start(s, [](const Var& v) { return view_of<Acc, 1>(v); }),
      .h0 = view_of<T, 2>(s.initial[0]),
      .state0 = each_wide(s.initial, [](const Var& v) { return view_of<Acc, 2>(v); }),
      .carried = s.path.carried.view<std::int32_t, 1>(),
      .reset = s.path.reset.view<std::int32_t, 2>(),
      .rows = view_of(s.path.rows),
      .reverse = s.path.reverse,
      .options = s.path.options,
      .h = s.state[0].value().mutable_view<T, 3>(),
      .state = each_wide(s.state, [](const Var& v) { return v.value().mutable_view<Acc, 3>(); }),
      .gates = s.gates.value().mutable_view<T, 3>(),
      .saved = s.kept.mutable_view<T, 4>(),
      .normal = s.normal.mutable_view<T, 4>(),
      .deviation = s.deviation.mutable_view<Acc, 3>(),
      .mask = mask_view(s),
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
      .weight_hr = view_of<T, 2>(s.parameters.weight_hr),
      .gain = vectors_of<Acc>(s.parameters.gain, 2),
      .parameter = vectors_of<Acc>(s.parameters.per_unit, s.cell->parameters),
      .start = each_start(s, [](const Var& v) { return view_of<Acc, 1>(v); }),
      .h0 = view_of<T, 2>(s.initial[0]),
      .state0 = each_wide(s.initial, [](const Var& v) { return view_of<Acc, 2>(v); }),
      .carried = s.path.carried.view<std::int32_t, 1>(),
      .reset = s.path.reset.view<std::int32_t, 2>(),
      .rows = view_of(s.path.rows),
      .reverse = s.path.reverse,
      .options = s.path.options,
      .h = s.state[0].value().view<T, 3>(),
      .state = each_wide(s.state, [](const Var& v) { return v.value().view<Acc, 3>(); }),
      .gates = s.gates.gradient().tensor.mutable_view<T, 3>(),
      .saved = s.kept.mutable_view<T, 4>(),
      .normal = s.normal.mutable_view<T, 4>(),
      .deviation = s.deviation.mutable_view<Acc, 3>(),
      .mask = mask_view(s),
      .d_x = gradient_of<T, 3>(s.x),
      .d_weight_ih = gradient_of<Acc, 2>(s.parameters.weight_ih),
      .d_weight_hh = gradient_of<Acc, 2>(s.parameters.weight_hh),
      .d_weight_hr = gradient_of<Acc, 2>(s.parameters.weight_hr),
      .d_bias_ih = gradient_of<Acc, 1>(s.parameters.bias_ih),
      .d_bias_hh = gradient_of<Acc, 1>(s.parameters.bias_hh),
      .d_gain = vector_gradients_of<Acc>(s.parameters.gain, 2),
      .d_parameter = vector_gradients_of<Acc>(s.parameters.per_unit, s.cell->parameters),
      .d_start = each_start(s, [](const Var& v) { return gradient_of<Acc, 1>(v); }),
      .d_h0 = gradient_of<T, 2>(s.initial[0]),
      .d_state0 = each_wide(s.initial, [](const Var& v) { return gradient_of<Acc, 2>(v); }),
      .tf32 = s.x.tape().tf32()});
}

/// Pascanu's penalty, whose immediate gradient is a function of δa: after backward().
template <class T>
void penalize(const Saved& s) {
  const std::string_view name = s.cell->name;
  Tape& tape = s.x.tape();
  const Tensor value = tape.tensor({1}, dtype_of<Accumulator<T>>());
  tape.run_with_scratch(
      GradientNormPenalty<T>{.activation = name == "tanh"   ? SimpleActivation::tanh
                                           : name == "relu" ? SimpleActivation::relu
                                                            : SimpleActivation::linear,
                             .delta = s.gates.gradient().tensor.view<T, 3>(),
                             .h = s.state[0].value().view<T, 3>(),
                             .weight_hh = view_of<T, 2>(s.parameters.weight_hh),
                             .begin = s.path.rows.begin.view<std::int32_t, 1>(),
                             .end = s.path.rows.end.view<std::int32_t, 1>(),
                             .reset = s.path.reset.view<std::int32_t, 2>(),
                             .weight = s.path.gradient_norm_penalty,
                             .penalty = value.mutable_view<Accumulator<T>, 1>(),
                             .d_weight_hh = gradient_of<Accumulator<T>, 2>(s.parameters.weight_hh),
                             .tf32 = tape.tf32()});
}

/// "lstm layer 0, gate i", "lstm layer 0, cell state", …
void label(Tape& tape, const Saved& s) {
  const bool normalizes = s.parameters.gain.present() || s.cell->normalized_phases() > 0;
  Label like{.name = tape.layer_name().empty() ? std::string(s.cell->name) : std::string(),
             .forward = normalizes ? kNormalizedForwardTolerance : kRecurrentForwardTolerance,
             .backward = normalizes ? kNormalizedBackwardTolerance : kRecurrentBackwardTolerance};
  const std::string direction = s.path.reverse ? "reverse " : "";
  for (std::size_t k = 0; k < static_cast<std::size_t>(s.cell->states); ++k) {
    const std::string part = direction + std::string(s.cell->state_names[k]);
    like.part = part;
    tape.label(s.state[k], like);
    const Var& initial = s.initial[k];
    if (!initial.present() || initial.needs_gradient()) continue;
    tape.label(initial, {.name = like.name, .part = "initial " + part, .axes = Axes::state});
  }
  like.part = direction + "gate";
  for (const std::string_view gate : s.cell->gate_names) {
    if (!gate.empty()) like.blocks.emplace_back(gate);
  }
  tape.label(s.gates, like);
}

}  // namespace

RecurrentOutput recurrent_sequence(CellKind cell, Var x, const RecurrentParameters& parameters,
                                   std::span<const Var> initial, const RecurrentPath& path) {
  if (x.shape().rank() != 3 || x.shape()[0] == 0) {
    throw ShapeError("recurrent_sequence: x is " + x.shape().text() +
                     ", expected [T, B, E] with T > 0");
  }
  const auto states = static_cast<std::size_t>(cell->states);
  if (initial.size() > states) {
    expect_extent("recurrent_sequence: initial states", std::ssize(initial), cell->states);
  }
  const bool simple = cell->name == "tanh" || cell->name == "relu" || cell->name == "linear";
  if (path.gradient_norm_penalty > 0 && (!simple || path.reverse || parameters.gain.present() ||
                                         parameters.weight_hr.present() || path.options.any())) {
    throw ConfigError(
        "recurrent_sequence: gradient_norm_penalty is for the cells tanh, relu and linear without "
        "other options");
  }
  Tape& tape = x.tape();
  const std::int64_t steps = x.shape()[0], batch = x.shape()[1], gates = cell->gates;
  const std::int64_t width = parameters.weight_ih.shape()[0] / gates;
  const bool projects = parameters.weight_hr.present(), normalizes = parameters.gain.present();
  const std::int64_t output = projects ? parameters.weight_hr.shape()[0] : width;
  const DType dtype = x.dtype(), wide = dtype == DType::f64 ? DType::f64 : DType::f32;
  Saved s{.cell = cell, .x = x, .parameters = parameters, .path = path};
  std::copy(initial.begin(), initial.end(), s.initial.begin());
  const RecurrentParameters& p = parameters;
  const std::initializer_list<Var> inputs{
      x,           p.weight_ih, p.weight_hh,  p.weight_hr,  p.bias_ih,
      p.bias_hh,   p.gain,      p.per_unit,   p.start[0],   p.start[1],
      p.start[2],  p.start[3],  s.initial[0], s.initial[1], s.initial[2],
      s.initial[3]};
  static_assert(kMostStates == 4);
  // On the tape in the order in which a step computes them.
  s.gates = tape.overwritten(tape.tensor({steps, batch, gates * width}, dtype), inputs);
  const std::int64_t saved = cell->saved() + (projects ? 1 : 0);
  const std::int64_t normalizations = cell->normalized_phases() + (normalizes ? 2 : 0);
  if (saved > 0) s.kept = tape.tensor({saved, steps, batch, width}, dtype);
  if (normalizes) s.normal = tape.tensor({2, steps, batch, gates * width}, dtype);
  if (normalizations > 0) s.deviation = tape.tensor({normalizations, steps, batch}, wide);
  if (path.options.draws()) {
    s.mask = tape.tensor({(steps * batch * width + 3) / 4}, DType::i32);
  }
  for (std::size_t k = states; k-- > 0;) {
    s.state[k] = tape.output(
        tape.tensor({steps, batch, k == 0 ? output : width}, k == 0 ? dtype : wide), inputs);
  }
  for (std::size_t k = 0; k < states; ++k) {
    const Tensor& all = s.state[k].value();
    const std::int64_t n = all.shape().back(), end = path.reverse ? 0 : steps - 1;
    s.last[k] = tape.output(path.rows.present() ? tape.tensor({batch, n}, all.dtype())
                                                : all.slice(end, 1).reshaped({batch, n}),
                            inputs);
  }
  label(tape, s);
  visit_float(dtype, [&]<class T>(std::type_identity<T>) {
    forward<T>(s);
    tape.on_backward({s.state[0], s.last[0], s.last[1], s.last[2], s.last[3]}, [s] {
      backward<T>(s);
      if (s.path.gradient_norm_penalty > 0) penalize<T>(s);
    });
  });
  RecurrentOutput result{.h = s.state[0],
                         .last = {s.last.begin(), s.last.begin() + cell->states},
                         .states = {},
                         .gates = s.gates.value()};
  for (std::size_t k = 0; k < states; ++k) result.states.push_back(s.state[k].value());
  return result;
}

}  // namespace carousel
