#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/recurrent_sequence/cell_rows.h"
#include "kernels/recurrent_sequence/recurrent_sequence.h"
#include "tests/kernels/two_phase_cell.h"
#include "tests/reference/recurrent_sequence.h"
#include "tests/support/buffer.h"

namespace carousel::test {

using reference::Values;

/// Every cell of the table, and the tests' own. Under ThreadSanitizer one of one phase and one of
/// two: the order of memory is the loop's and no cell's.
inline std::vector<CellKind> tested_cells() {
#ifdef __SANITIZE_THREAD__
  return {cell_kind("lstm"), &TwoPhase::kInfo};
#endif
  std::vector<CellKind> all(cell_kinds().begin(), cell_kinds().end());
  all.push_back(&TwoPhase::kInfo);
  return all;
}

/// A layer, what flows into its backward pass, and how its gradients are to be written.
struct RecurrentProblem {
  CellKind cell = nullptr;
  reference::Layer layer{};
  reference::LayerOutputGradients out{};
  std::vector<std::string> accumulate{};  ///< gradients that hold kOld everywhere before
  bool tf32 = false;

  bool adds(const std::string& gradient) const {
    return std::find(accumulate.begin(), accumulate.end(), gradient) != accumulate.end();
  }
};
inline constexpr double kOld = 0.5;

struct RecurrentSize {
  std::size_t T, B, I, H;
};

/// Which optional arguments a random problem has.
struct RecurrentParts {
  bool biases = true, state = true, resets = true, d_h = true, d_last = true, ranges = false;
  bool weight_hh = true;
};

inline constexpr std::size_t kStates = kMostStates;

/// Weights, biases and parameters of at most 1/√H (W_hh of half of that where nothing else bounds
/// the state), everything else of at most 1, each value stored as the contract stores it: T, or
/// Accumulator<T>.
template <class T>
RecurrentProblem random_problem(CellKind cell, const RecurrentSize& size,
                                const RecurrentParts& parts, unsigned seed) {
  const auto [steps, batch, input, width] = size;
  std::mt19937 random(seed);
  const auto draw = [&]<class U>(std::type_identity<U>, std::size_t count, double bound) {
    std::uniform_real_distribution<double> uniform(-bound, bound);
    Values values(count);
    for (double& v : values) v = static_cast<double>(static_cast<U>(uniform(random)));
    return values;
  };
  constexpr std::type_identity<T> stored{};
  constexpr std::type_identity<Accumulator<T>> wide{};
  const double bound = width == 0 ? 1 : 1 / std::sqrt(static_cast<double>(width));

  const reference::Cell& formulas = reference::cell(cell->name);
  const std::size_t columns = formulas.gates * width, units = steps * batch * width;
  RecurrentProblem p{.cell = cell};
  p.layer = {.cell = &formulas, .T = steps, .B = batch, .I = input, .H = width};
  p.layer.x = draw(stored, steps * batch * input, 1);
  p.layer.weight_ih = draw(stored, columns * input, bound);
  const bool unbounded = cell->name == "relu" || cell->name == "linear";
  if (parts.weight_hh) {
    p.layer.weight_hh = draw(stored, columns * width, unbounded ? bound / 2 : bound);
  }
  if (parts.biases) {
    p.layer.bias_ih = draw(wide, columns, bound);
    p.layer.bias_hh = draw(wide, columns, bound);
  }
  p.layer.parameter = draw(wide, formulas.parameters * width, bound);
  for (std::size_t k = 0; k < formulas.states; ++k) {
    const auto state = [&] {
      return k == 0 ? draw(stored, batch * width, 1) : draw(wide, batch * width, 1);
    };
    if (parts.state) p.layer.initial[k] = state();
    if (parts.d_last) p.out.d_last[k] = state();
  }
  if (parts.resets) {
    for (std::size_t n = 0; n < steps * batch; ++n) p.layer.reset.push_back(random() % 4 == 0);
  }
  if (parts.d_h) p.out.d_h = draw(stored, units, 1);
  if (kWidened<T> && cell->name == "relu") {
    // On one side of the kink, at which the rounding of bf16 would decide.
    for (Values* all : {&p.layer.x, &p.layer.weight_ih, &p.layer.weight_hh, &p.layer.bias_ih,
                        &p.layer.bias_hh, &p.layer.initial[0]}) {
      for (double& v : *all) v = std::abs(v) / 4;  // exact, and sums of one sign stay about 1
    }
    for (double& v : p.layer.weight_hh) v = static_cast<double>(static_cast<T>(v * bound));
  }
  for (std::size_t b = 0; parts.ranges && b < batch; ++b) {
    const auto all = static_cast<unsigned>(steps + 1);
    const auto one = static_cast<std::int32_t>(random() % all);
    const auto other = static_cast<std::int32_t>(random() % all);
    p.layer.begin.push_back(b % 2 == 0 ? 0 : std::min(one, other));
    p.layer.end.push_back(std::max(one, other));
  }
  return p;
}

struct RecurrentSolution {
  reference::LayerStates s;
  reference::LayerGradients d;
};

/// A solution's values and gradients, with their names in the contract.
using Named = std::vector<std::pair<std::string, const Values*>>;
inline Named named(const reference::LayerStates& s) {
  Named all{{"gates", &s.gates}};
  for (std::size_t k = 0; k < kStates; ++k) {
    all.emplace_back("state" + std::to_string(k), &s.state[k]);
    all.emplace_back("last" + std::to_string(k), &s.last[k]);
  }
  return all;
}
inline Named named(const reference::LayerGradients& d) {
  Named all{{"d_gates", &d.d_gates},         {"d_x", &d.d_x},
            {"d_weight_ih", &d.d_weight_ih}, {"d_weight_hh", &d.d_weight_hh},
            {"d_bias_ih", &d.d_bias_ih},     {"d_bias_hh", &d.d_bias_hh},
            {"d_parameter", &d.d_parameter}};
  for (std::size_t k = 0; k < kStates; ++k) {
    all.emplace_back("d_initial" + std::to_string(k), &d.d_initial[k]);
  }
  return all;
}

/// Runs both passes of an op on a device. Every output starts as NaN, or as kOld to be added to.
template <class T>
class RecurrentRun {
  using Acc = Accumulator<T>;

 public:
  RecurrentRun(const Device& on, const RecurrentProblem& problem) : device(on), p(problem) {
    for (std::size_t k = 1; k < states; ++k) {
      state0.push_back(given<Acc>(p.layer.initial[k]));
      state.emplace_back(device, steps * batch * width);
      state_last.emplace_back(device, batch * width);
      d_state_last.push_back(given<Acc>(p.out.d_last[k]));
      d_state0.push_back(gradient<Acc>("d_initial" + std::to_string(k), batch * width));
    }
  }

  RecurrentSequenceForward<T> forward() const {
    RecurrentSequenceForward<T> op{
        .cell = p.cell,
        .x = x.view(steps, batch, input),
        .weight_ih = weight_ih.view(columns, input),
        .weight_hh = or_absent<T, 2>(weight_hh, p.layer.weight_hh, columns, width),
        .bias_ih = or_absent<Acc, 1>(bias_ih, p.layer.bias_ih, columns),
        .bias_hh = or_absent<Acc, 1>(bias_hh, p.layer.bias_hh, columns),
        .parameter = parameters(),
        .h0 = or_absent<T, 2>(h0, p.layer.initial[0], batch, width),
        .reset = resets(),
        .rows = ranges(),
        .h = h.view(steps, batch, width),
        .gates = gates.view(steps, batch, columns),
        .saved = saved_view(),
        .h_last = h_last.view(batch, width),
        .tf32 = p.tf32};
    for (std::size_t k = 0; k + 1 < states; ++k) {
      op.state0[k] = or_absent<Acc, 2>(state0[k], p.layer.initial[k + 1], batch, width);
      op.state[k] = state[k].view(steps, batch, width);
      op.state_last[k] = state_last[k].view(batch, width);
    }
    return op;
  }

  RecurrentSequenceBackward<T> backward() const {
    RecurrentSequenceBackward<T> op{
        .cell = p.cell,
        .d_h = or_absent<T, 3>(d_h, p.out.d_h, steps, batch, width),
        .d_h_last = or_absent<T, 2>(d_h_last, p.out.d_last[0], batch, width),
        .x = x.view(steps, batch, input),
        .weight_ih = weight_ih.view(columns, input),
        .weight_hh = or_absent<T, 2>(weight_hh, p.layer.weight_hh, columns, width),
        .parameter = parameters(),
        .h0 = or_absent<T, 2>(h0, p.layer.initial[0], batch, width),
        .reset = resets(),
        .rows = ranges(),
        .h = h.view(steps, batch, width),
        .gates = gates.view(steps, batch, columns),
        .saved = saved_view(),
        .d_x = {d_x.view(steps, batch, input), p.adds("d_x")},
        .d_weight_ih = {d_weight_ih.view(columns, input), p.adds("d_weight_ih")},
        .d_bias_ih = {d_bias_ih.view(columns), p.adds("d_bias_ih")},
        .d_bias_hh = {d_bias_hh.view(columns), p.adds("d_bias_hh")},
        .d_h0 = {d_h0.view(batch, width), p.adds("d_initial0")},
        .tf32 = p.tf32};
    if (!p.layer.weight_hh.empty()) {
      op.d_weight_hh = {d_weight_hh.view(columns, width), p.adds("d_weight_hh")};
    }
    if (p.cell->parameters > 0) {
      op.d_parameter = {d_parameter.view(p.cell->parameters, width), p.adds("d_parameter")};
    }
    for (std::size_t k = 0; k + 1 < states; ++k) {
      op.state0[k] = or_absent<Acc, 2>(state0[k], p.layer.initial[k + 1], batch, width);
      op.state[k] = state[k].view(steps, batch, width);
      op.d_state_last[k] = or_absent<Acc, 2>(d_state_last[k], p.out.d_last[k + 1], batch, width);
      op.d_state0[k] = {d_state0[k].view(batch, width),
                        p.adds("d_initial" + std::to_string(k + 1))};
    }
    return op;
  }

  template <class Op>
  void run(Op op) const {
    const auto scratch = give_scratch(device, op);
    p.cell == &TwoPhase::kInfo ? run_two_phase(device, op) : carousel::run(device, op);
  }

  Values d_weight_hh_values() const { return as_double(d_weight_hh.read()); }

  RecurrentSolution solution() const {
    RecurrentSolution r;
    run(forward());
    r.s.gates = as_double(gates.read());
    r.s.state[0] = as_double(h.read()), r.s.last[0] = as_double(h_last.read());
    for (std::size_t k = 1; k < states; ++k) {
      r.s.state[k] = as_double(state[k - 1].read());
      r.s.last[k] = as_double(state_last[k - 1].read());
    }
    run(backward());
    r.d.d_gates = as_double(gates.read()), r.d.d_x = as_double(d_x.read());
    r.d.d_weight_ih = as_double(d_weight_ih.read());
    if (!p.layer.weight_hh.empty()) r.d.d_weight_hh = d_weight_hh_values();
    r.d.d_bias_ih = as_double(d_bias_ih.read()), r.d.d_bias_hh = as_double(d_bias_hh.read());
    r.d.d_parameter = as_double(d_parameter.read());
    r.d.d_initial[0] = as_double(d_h0.read());
    for (std::size_t k = 1; k < states; ++k) r.d.d_initial[k] = as_double(d_state0[k - 1].read());
    return r;
  }

 private:
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
  View<const U, R> or_absent(const Buffer<U>& b, const Values& values, Extent... extents) const {
    return values.empty() ? View<const U, R>{} : View<const U, R>(b.view(extents...));
  }
  View<const Acc, 2> parameters() const {
    if (p.cell->parameters == 0) return {};
    return parameter.view(p.cell->parameters, width);
  }
  View<T, 4> saved_view() const {
    if (p.cell->saved() == 0) return {};
    return saved.view(p.cell->saved(), steps, batch, width);
  }
  View<const std::int32_t, 2> resets() const {
    if (p.layer.reset.empty()) return {};
    return reset.view(steps, batch);
  }
  RowRangeView ranges() const {
    RowRangeView rows;
    if (!p.layer.begin.empty()) rows.begin = begin.view(batch);
    if (!p.layer.end.empty()) rows.end = end.view(batch);
    return rows;
  }

  const Device device;
  const RecurrentProblem& p;
  std::size_t steps = p.layer.T, batch = p.layer.B, input = p.layer.I, width = p.layer.H;
  std::size_t states = p.layer.cell->states, columns = p.layer.cell->gates * width;
  Buffer<T> x = given<T>(p.layer.x);
  Buffer<T> weight_ih = given<T>(p.layer.weight_ih), weight_hh = given<T>(p.layer.weight_hh);
  Buffer<Acc> bias_ih = given<Acc>(p.layer.bias_ih), bias_hh = given<Acc>(p.layer.bias_hh);
  Buffer<Acc> parameter = given<Acc>(p.layer.parameter);
  Buffer<T> h0 = given<T>(p.layer.initial[0]);
  Buffer<std::int32_t> reset{device, p.layer.reset};
  Buffer<std::int32_t> begin{device, p.layer.begin}, end{device, p.layer.end};
  Buffer<T> d_h = given<T>(p.out.d_h), d_h_last = given<T>(p.out.d_last[0]);
  Buffer<T> h{device, steps*batch*width}, gates{device, steps*batch*columns};
  Buffer<T> h_last{device, batch* width};
  Buffer<T> saved{device, static_cast<std::size_t>(p.cell->saved()) * steps* batch* width};
  Buffer<T> d_x = gradient<T>("d_x", steps* batch* input);
  Buffer<T> d_h0 = gradient<T>("d_initial0", batch* width);
  Buffer<Acc> d_weight_ih = gradient<Acc>("d_weight_ih", columns* input);
  Buffer<Acc> d_weight_hh = gradient<Acc>("d_weight_hh", columns* width);
  Buffer<Acc> d_bias_ih = gradient<Acc>("d_bias_ih", columns);
  Buffer<Acc> d_bias_hh = gradient<Acc>("d_bias_hh", columns);
  Buffer<Acc> d_parameter = gradient<Acc>("d_parameter", p.layer.cell->parameters* width);
  std::vector<Buffer<Acc>> state0, state, state_last, d_state_last, d_state0;  // after h
};

template <class T>
RecurrentSolution solve(const Device& device, const RecurrentProblem& problem) {
  return RecurrentRun<T>(device, problem).solution();
}

/// The oracle's answer to the same problem.
inline RecurrentSolution expected(const RecurrentProblem& p) {
  RecurrentSolution want{.s = reference::forward(p.layer), .d = {}};
  want.d = reference::backward(p.layer, want.s, p.out);
  for (const auto& [name, values] : named(want.d)) {
    if (!p.adds(name)) continue;
    for (double& v : const_cast<Values&>(*values)) v += kOld;
  }
  return want;
}

inline const std::vector<std::string>& all_gradients() {
  static const std::vector<std::string> names{"d_x",        "d_weight_ih", "d_weight_hh",
                                              "d_bias_ih",  "d_bias_hh",   "d_parameter",
                                              "d_initial0", "d_initial1"};
  return names;
}

/// "two_phase", for names of tests.
inline std::string test_name(CellKind cell) {
  std::string name(cell->name);
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}

}  // namespace carousel::test
