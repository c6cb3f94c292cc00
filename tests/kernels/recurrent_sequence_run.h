#pragma once

#include <string>
#include <vector>

#include "tests/kernels/recurrent_sequence_problem.h"
#include "tests/support/buffer.h"

namespace carousel::test {

/// Runs both passes of an op on a device. Every output starts as NaN, or as kOld to be added to.
template <class T>
class RecurrentRun {
  using Acc = Accumulator<T>;

 public:
  RecurrentRun(const Device& on, const RecurrentProblem& problem) : device(on), p(problem) {
    for (std::size_t k = 0; k < states; ++k) {
      start.push_back(given<Acc>(p.layer.start[k]));
      d_start.push_back(gradient<Acc>("d_start" + std::to_string(k), p.layer.width(k)));
      if (k == 0) continue;
      state0.push_back(given<Acc>(p.layer.initial[k]));
      state.emplace_back(device, steps * batch * width);
      state_last.emplace_back(device, batch * width);
      d_state_last.push_back(given<Acc>(p.out.d_last[k]));
      d_state0.push_back(gradient<Acc>("d_initial" + std::to_string(k), batch * width));
    }
  }

  RecurrentSequenceForward<T> forward() const {
    auto op = common<RecurrentSequenceForward<T>>();
    op.bias_ih = or_absent<Acc, 1>(bias_ih, columns);
    op.bias_hh = or_absent<Acc, 1>(bias_hh, columns);
    op.h_last = h_last.view(batch, hidden);
    for (std::size_t k = 0; k + 1 < states; ++k) {
      op.state_last[k] = state_last[k].view(batch, width);
    }
    return op;
  }

  RecurrentSequenceBackward<T> backward() const {
    auto op = common<RecurrentSequenceBackward<T>>();
    op.d_h = or_absent<T, 3>(d_h, steps, batch, hidden);
    op.d_h_last = or_absent<T, 2>(d_h_last, batch, hidden);
    op.d_x = {d_x.view(steps, batch, input), p.adds("d_x")};
    op.d_weight_ih = {d_weight_ih.view(columns, input), p.adds("d_weight_ih")};
    op.d_bias_ih = {d_bias_ih.view(columns), p.adds("d_bias_ih")};
    if (p.cell->multiplies) op.d_bias_hh = {d_bias_hh.view(columns), p.adds("d_bias_hh")};
    if (!p.layer.weight_hh.empty()) {
      op.d_weight_hh = {d_weight_hh.view(columns, head), p.adds("d_weight_hh")};
    }
    if (!p.layer.weight_hr.empty()) {
      op.d_weight_hr = {d_weight_hr.view(hidden, width), p.adds("d_weight_hr")};
    }
    if (!p.layer.gain.empty()) op.d_gain = {d_gain.view(2, columns), p.adds("d_gain")};
    if (p.cell->parameters > 0) {
      op.d_parameter = {d_parameter.view(p.cell->parameters, width), p.adds("d_parameter")};
    }
    if (p.wants_d_initial()) op.d_h0 = {d_h0.view(batch, hidden), p.adds("d_initial0")};
    for (std::size_t k = 0; p.starts() && k < states; ++k) {
      op.d_start[k] = {d_start[k].view(p.layer.width(k)), p.adds("d_start" + std::to_string(k))};
    }
    for (std::size_t k = 0; k + 1 < states; ++k) {
      op.d_state_last[k] = or_absent<Acc, 2>(d_state_last[k], batch, width);
      if (p.wants_d_initial()) {
        op.d_state0[k] = {d_state0[k].view(batch, width),
                          p.adds("d_initial" + std::to_string(k + 1))};
      }
    }
    return op;
  }

  template <class Op>
  void run(Op op) const {
    const auto scratch = give_scratch(device, op);
    p.cell == &TwoPhase::kInfo ? run_two_phase(device, op) : carousel::run(device, op);
  }

  Values d_x_values() const { return as_double(d_x.read()); }
  Values d_weight_hh_values() const { return as_double(d_weight_hh.read()); }
  std::vector<std::uint8_t> mask_values() const { return mask.read(); }

  /// Runs the forward pass.
  reference::LayerStates states_after() const {
    run(forward());
    reference::LayerStates s;
    s.gates = as_double(gates.read());
    s.state[0] = as_double(h.read()), s.last[0] = as_double(h_last.read());
    for (std::size_t k = 1; k < states; ++k) {
      s.state[k] = as_double(state[k - 1].read());
      s.last[k] = as_double(state_last[k - 1].read());
    }
    return s;
  }

  RecurrentSolution solution() const {
    RecurrentSolution r{.s = states_after(), .d = {}};
    run(backward());
    r.d.d_gates = as_double(gates.read()), r.d.d_x = as_double(d_x.read());
    r.d.d_weight_ih = as_double(d_weight_ih.read()), r.d.d_weight_hh = d_weight_hh_values();
    r.d.d_bias_ih = as_double(d_bias_ih.read()), r.d.d_bias_hh = as_double(d_bias_hh.read());
    r.d.d_parameter = as_double(d_parameter.read()), r.d.d_gain = as_double(d_gain.read());
    r.d.d_weight_hr = as_double(d_weight_hr.read());
    for (std::size_t k = 0; k < states && p.wants_d_initial(); ++k) {
      r.d.d_initial[k] = as_double(k == 0 ? d_h0.read() : std::vector<T>{});
      if (k > 0) r.d.d_initial[k] = as_double(d_state0[k - 1].read());
    }
    for (std::size_t k = 0; k < states && p.starts(); ++k) {
      r.d.d_start[k] = as_double(d_start[k].read());
    }
    return r;
  }

 private:
  /// What both passes are given.
  template <class Op>
  Op common() const {
    Op op{.cell = p.cell,
          .x = x.view(steps, batch, input),
          .weight_ih = weight_ih.view(columns, input),
          .h = h.view(steps, batch, hidden),
          .gates = gates.view(steps, batch, columns)};
    op.weight_hh = or_absent<T, 2>(weight_hh, columns, head);
    op.weight_hr = or_absent<T, 2>(weight_hr, hidden, width);
    op.gain = or_absent<Acc, 2>(gain, 2, columns);
    if (p.cell->parameters > 0) op.parameter = parameter.view(p.cell->parameters, width);
    op.h0 = or_absent<T, 2>(h0, batch, hidden);
    for (std::size_t k = 0; k < states; ++k) {
      op.start[k] = or_absent<Acc, 1>(start[k], p.layer.width(k));
      if (k == 0) continue;
      op.state0[k - 1] = or_absent<Acc, 2>(state0[k - 1], batch, width);
      op.state[k - 1] = state[k - 1].view(steps, batch, width);
    }
    op.carried = or_absent<std::int32_t, 1>(carried, batch);
    op.reset = or_absent<std::int32_t, 2>(reset, steps, batch);
    op.rows.begin = or_absent<std::int32_t, 1>(begin, batch);
    op.rows.end = or_absent<std::int32_t, 1>(end, batch);
    op.reverse = p.layer.reverse;
    op.options = p.options;
    if (op.options.draws() || (op.options.training && op.options.variational > 0)) {
      op.options.source.step = step.view(1);
    }
    if (kept > 0) op.saved = saved.view(kept, steps, batch, width);
    if (!p.layer.gain.empty()) op.normal = normal.view(2, steps, batch, columns);
    if (normalizations > 0) op.deviation = deviation.view(normalizations, steps, batch);
    if (p.options.draws()) op.mask = mask.view(steps, batch, width);
    op.tf32 = p.tf32;
    return op;
  }

  template <class U>
  Buffer<U> given(const Values& values) const {
    return Buffer<U>(device, stored<U>(values));
  }
  template <class U>
  Buffer<U> gradient(const std::string& name, std::size_t count) const {
    if (!p.adds(name)) return Buffer<U>(device, count);
    return Buffer<U>(device, std::vector<U>(count, static_cast<U>(kOld)));
  }
  template <class U, int R, class... Extent>
  View<const U, R> or_absent(const Buffer<U>& b, Extent... extents) const {
    return b.size() == 0 ? View<const U, R>{} : View<const U, R>(b.view(extents...));
  }

  const Device device;
  const RecurrentProblem& p;
  std::size_t steps = p.layer.T, batch = p.layer.B, input = p.layer.I, width = p.layer.H;
  std::size_t states = p.layer.cell->states, columns = p.layer.cell->gates * width;
  std::size_t hidden = p.layer.P(), head = hidden / p.layer.heads;
  std::size_t kept =
      static_cast<std::size_t>(p.cell->saved()) + (p.layer.weight_hr.empty() ? 0 : 1);
  std::size_t normalizations =
      static_cast<std::size_t>(p.cell->normalized_phases()) + (p.layer.gain.empty() ? 0 : 2);
  Buffer<T> x = given<T>(p.layer.x);
  Buffer<T> weight_ih = given<T>(p.layer.weight_ih), weight_hh = given<T>(p.layer.weight_hh);
  Buffer<T> weight_hr = given<T>(p.layer.weight_hr);
  Buffer<Acc> bias_ih = given<Acc>(p.layer.bias_ih), bias_hh = given<Acc>(p.layer.bias_hh);
  Buffer<Acc> parameter = given<Acc>(p.layer.parameter), gain = given<Acc>(p.layer.gain);
  Buffer<T> h0 = given<T>(p.layer.initial[0]);
  Buffer<std::int32_t> reset{device, p.layer.reset}, carried{device, p.layer.carried};
  Buffer<std::int32_t> begin{device, p.layer.begin}, end{device, p.layer.end};
  Buffer<std::int64_t> step{device, std::vector<std::int64_t>{p.step}};
  Buffer<T> d_h = given<T>(p.out.d_h), d_h_last = given<T>(p.out.d_last[0]);
  Buffer<T> h{device, steps*batch*hidden}, gates{device, steps*batch*columns};
  Buffer<T> h_last{device, batch*hidden}, saved{device, kept*steps*batch*width};
  Buffer<T> normal{device, p.layer.gain.size() * steps* batch};
  Buffer<Acc> deviation{device, normalizations* steps* batch};
  Buffer<std::uint8_t> mask{device, p.options.draws() ? steps* batch* width : 0};
  Buffer<T> d_x = gradient<T>("d_x", steps* batch* input);
  Buffer<T> d_h0 = gradient<T>("d_initial0", batch* hidden);
  Buffer<Acc> d_weight_ih = gradient<Acc>("d_weight_ih", columns* input);
  Buffer<Acc> d_weight_hh = gradient<Acc>("d_weight_hh", p.layer.weight_hh.size());
  Buffer<Acc> d_weight_hr = gradient<Acc>("d_weight_hr", p.layer.weight_hr.size());
  Buffer<Acc> d_bias_ih = gradient<Acc>("d_bias_ih", columns);
  Buffer<Acc> d_bias_hh = gradient<Acc>("d_bias_hh", p.cell->multiplies ? columns : 0);
  Buffer<Acc> d_gain = gradient<Acc>("d_gain", p.layer.gain.size());
  Buffer<Acc> d_parameter = gradient<Acc>("d_parameter", p.layer.cell->parameters* width);
  std::vector<Buffer<Acc>> start, d_start;
  std::vector<Buffer<Acc>> state0, state, state_last, d_state_last, d_state0;  // after h
};

template <class T>
RecurrentSolution solve(const Device& device, const RecurrentProblem& problem) {
  return RecurrentRun<T>(device, problem).solution();
}

}  // namespace carousel::test
