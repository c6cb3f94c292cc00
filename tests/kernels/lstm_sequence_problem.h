#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "kernels/lstm_sequence/lstm_sequence.h"
#include "tests/reference/lstm_sequence.h"
#include "tests/support/buffer.h"

namespace carousel::test {

/// A layer, what flows into its backward pass, and how its gradients are to be written.
struct LstmProblem {
  reference::Lstm layer;
  reference::LstmOutputGradients out;
  bool accumulate = false;  ///< onto gradients that hold kOld everywhere
  bool tf32 = false;
};
inline constexpr double kOld = 0.5;

struct LstmSolution {
  std::vector<double> h, c, gates;
  reference::LstmGradients d;  ///< d_bias: of bias_ih; that of bias_hh must be equal
  bool biases_agree = true;
};

struct LstmSize {
  std::size_t T, B, I, H;
};

/// Which optional arguments a random problem has.
struct LstmParts {
  bool biases = true, state = true, resets = true, d_h = true, d_last = true;
};

/// Weights and biases of at most 1/√H, everything else of at most 1, each value stored as the
/// contract stores it: T, or Accumulator<T> for biases, cell states and their gradients.
template <class T>
LstmProblem random_lstm(const LstmSize& size, const LstmParts& parts, unsigned seed) {
  const auto [steps, batch, input, width] = size;
  std::mt19937 random(seed);
  const auto draw = [&]<class U>(std::type_identity<U>, std::size_t count, double bound) {
    std::uniform_real_distribution<double> uniform(-bound, bound);
    std::vector<double> values(count);
    for (double& v : values) v = static_cast<double>(static_cast<U>(uniform(random)));
    return values;
  };
  constexpr std::type_identity<T> stored{};
  constexpr std::type_identity<Accumulator<T>> wide{};
  const double bound = width == 0 ? 1 : 1 / std::sqrt(static_cast<double>(width));

  LstmProblem p;
  p.layer = {.T = steps, .B = batch, .I = input, .H = width};
  p.layer.x = draw(stored, steps * batch * input, 1);
  p.layer.weight_ih = draw(stored, 4 * width * input, bound);
  p.layer.weight_hh = draw(stored, 4 * width * width, bound);
  if (parts.biases) {
    p.layer.bias_ih = draw(wide, 4 * width, bound);
    p.layer.bias_hh = draw(wide, 4 * width, bound);
  }
  if (parts.state) {
    p.layer.h0 = draw(stored, batch * width, 1);
    p.layer.c0 = draw(wide, batch * width, 1);
  }
  if (parts.resets) {
    for (std::size_t n = 0; n < steps * batch; ++n) p.layer.reset.push_back(random() % 4 == 0);
  }
  if (parts.d_h) p.out.d_h = draw(stored, steps * batch * width, 1);
  if (parts.d_last) {
    p.out.d_h_last = draw(stored, batch * width, 1);
    p.out.d_c_last = draw(wide, batch * width, 1);
  }
  return p;
}

/// Runs both passes of an op on a device. Every output starts as NaN, or as kOld to be added to.
template <class T>
class LstmRun {
  using Acc = Accumulator<T>;

 public:
  LstmRun(const Device& on, const LstmProblem& problem) : device(on), p(problem) {}

  LstmSequenceForward<T> forward() const {
    return {.x = x.view(steps, batch, input),
            .weight_ih = weight_ih.view(4 * width, input),
            .weight_hh = weight_hh.view(4 * width, width),
            .bias_ih = vector_or_absent(bias_ih, p.layer.bias_ih),
            .bias_hh = vector_or_absent(bias_hh, p.layer.bias_hh),
            .h0 = state_or_absent(h0, p.layer.h0),
            .c0 = state_or_absent(c0, p.layer.c0),
            .reset = resets(),
            .h = h.view(steps, batch, width),
            .c = c.view(steps, batch, width),
            .gates = gates.view(steps, batch, 4 * width),
            .tf32 = p.tf32};
  }

  LstmSequenceBackward<T> backward() const {
    const bool add = p.accumulate;
    LstmSequenceBackward<T> op{.d_h_last = state_or_absent(d_h_last, p.out.d_h_last),
                               .d_c_last = state_or_absent(d_c_last, p.out.d_c_last),
                               .x = x.view(steps, batch, input),
                               .weight_ih = weight_ih.view(4 * width, input),
                               .weight_hh = weight_hh.view(4 * width, width),
                               .h0 = state_or_absent(h0, p.layer.h0),
                               .c0 = state_or_absent(c0, p.layer.c0),
                               .reset = resets(),
                               .h = h.view(steps, batch, width),
                               .c = c.view(steps, batch, width),
                               .gates = gates.view(steps, batch, 4 * width),
                               .d_x = d_x.view(steps, batch, input),
                               .d_weight_ih = d_weight_ih.view(4 * width, input),
                               .d_weight_hh = d_weight_hh.view(4 * width, width),
                               .d_bias_ih = d_bias_ih.view(4 * width),
                               .d_bias_hh = d_bias_hh.view(4 * width),
                               .d_h0 = d_h0.view(batch, width),
                               .d_c0 = d_c0.view(batch, width),
                               .accumulate_d_x = add,
                               .accumulate_d_weight_ih = add,
                               .accumulate_d_weight_hh = add,
                               .accumulate_d_bias_ih = add,
                               .accumulate_d_bias_hh = add,
                               .accumulate_d_h0 = add,
                               .accumulate_d_c0 = add,
                               .tf32 = p.tf32};
    if (!p.out.d_h.empty()) op.d_h = d_h.view(steps, batch, width);
    return op;
  }

  template <class Op>
  void run(Op op) const {
    const auto scratch = give_scratch(device, op);
    carousel::run(device, op);
  }

  std::vector<double> d_weight_hh_values() const { return as_double(d_weight_hh.read()); }

  LstmSolution solution() const {
    LstmSolution s;
    run(forward());
    s.h = as_double(h.read()), s.c = as_double(c.read()), s.gates = as_double(gates.read());
    run(backward());
    s.d.d_gates = as_double(gates.read()), s.d.d_x = as_double(d_x.read());
    s.d.d_weight_ih = as_double(d_weight_ih.read());
    s.d.d_weight_hh = as_double(d_weight_hh.read());
    s.d.d_bias = as_double(d_bias_ih.read());
    s.biases_agree = s.d.d_bias == as_double(d_bias_hh.read());
    s.d.d_h0 = as_double(d_h0.read()), s.d.d_c0 = as_double(d_c0.read());
    return s;
  }

 private:
  template <class U>
  Buffer<U> given(const std::vector<double>& values) const {
    return Buffer<U>(device, stored<U>(values));
  }
  template <class U>
  Buffer<U> gradient(std::size_t count) const {
    if (!p.accumulate) return Buffer<U>(device, count);
    return Buffer<U>(device, std::vector<U>(count, static_cast<U>(kOld)));
  }
  template <class U>
  View<const U, 1> vector_or_absent(const Buffer<U>& b, const std::vector<double>& values) const {
    return values.empty() ? View<const U, 1>{} : View<const U, 1>(b.view(4 * width));
  }
  template <class U>
  View<const U, 2> state_or_absent(const Buffer<U>& b, const std::vector<double>& values) const {
    return values.empty() ? View<const U, 2>{} : View<const U, 2>(b.view(batch, width));
  }
  View<const std::int32_t, 2> resets() const {
    if (p.layer.reset.empty()) return {};
    return reset.view(steps, batch);
  }

  const Device device;
  const LstmProblem& p;
  std::size_t steps = p.layer.T, batch = p.layer.B, input = p.layer.I, width = p.layer.H;
  Buffer<T> x = given<T>(p.layer.x);
  Buffer<T> weight_ih = given<T>(p.layer.weight_ih), weight_hh = given<T>(p.layer.weight_hh);
  Buffer<Acc> bias_ih = given<Acc>(p.layer.bias_ih), bias_hh = given<Acc>(p.layer.bias_hh);
  Buffer<T> h0 = given<T>(p.layer.h0);
  Buffer<Acc> c0 = given<Acc>(p.layer.c0);
  Buffer<std::int32_t> reset{device, p.layer.reset};
  Buffer<T> d_h = given<T>(p.out.d_h), d_h_last = given<T>(p.out.d_h_last);
  Buffer<Acc> d_c_last = given<Acc>(p.out.d_c_last);
  Buffer<T> h{device, steps*batch*width}, gates{device, steps*batch * 4 * width};
  Buffer<Acc> c{device, steps* batch* width};
  Buffer<T> d_x = gradient<T>(steps * batch * input), d_h0 = gradient<T>(batch * width);
  Buffer<Acc> d_weight_ih = gradient<Acc>(4 * width * input);
  Buffer<Acc> d_weight_hh = gradient<Acc>(4 * width * width);
  Buffer<Acc> d_bias_ih = gradient<Acc>(4 * width), d_bias_hh = gradient<Acc>(4 * width);
  Buffer<Acc> d_c0 = gradient<Acc>(batch * width);
};

template <class T>
LstmSolution solve(const Device& device, const LstmProblem& problem) {
  return LstmRun<T>(device, problem).solution();
}

/// Every gradient of a solution, with its name.
inline std::vector<std::pair<const char*, const std::vector<double>*>> named(
    const reference::LstmGradients& d) {
  return {{"d_gates", &d.d_gates},
          {"d_x", &d.d_x},
          {"d_weight_ih", &d.d_weight_ih},
          {"d_weight_hh", &d.d_weight_hh},
          {"d_bias", &d.d_bias},
          {"d_h0", &d.d_h0},
          {"d_c0", &d.d_c0}};
}

/// The oracle's answer to the same problem.
inline LstmSolution expected(const LstmProblem& p) {
  const reference::LstmStates s = reference::lstm_forward(p.layer);
  LstmSolution want{
      .h = s.h, .c = s.c, .gates = s.gates, .d = reference::lstm_backward(p.layer, s, p.out)};
  if (!p.accumulate) return want;
  reference::LstmGradients& d = want.d;
  for (auto* all : {&d.d_x, &d.d_weight_ih, &d.d_weight_hh, &d.d_bias, &d.d_h0, &d.d_c0}) {
    for (double& v : *all) v += kOld;
  }
  return want;
}

}  // namespace carousel::test
