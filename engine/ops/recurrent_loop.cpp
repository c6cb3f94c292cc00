#include "engine/ops/recurrent_loop.h"

#include <algorithm>
#include <vector>

#include "engine/ops/product.h"

namespace carousel {
namespace {

struct Step {
  Tensor x, h_before;  ///< h_before may be absent: zero
  RecurrentOutput y;   ///< of which the backward pass overwrites the gates

  /// Whether the rule of the step has run.
  bool reached() const {
    const auto has = [](const Var& v) { return v.needs_gradient() && static_cast<bool>(v.d()); };
    return has(y.h) || std::any_of(y.last.begin(), y.last.end(), has);
  }
};

bool can_be_summed(const CellInfo& cell, const RecurrentParameters& p, const RecurrentPath& path) {
  const std::int64_t width = p.weight_ih.shape()[0] / cell.gates;
  const bool restarts = path.reset || path.carried || path.rows.present() || path.reverse;
  const bool drops = path.options.training && path.options.variational > 0;
  return cell.multiplies && cell.phases == 1 && cell.split == 0 && !p.gain.present() &&
         !p.weight_hr.present() && p.weight_hh.shape()[1] == width &&
         std::none_of(p.start.begin(), p.start.end(), [](const Var& v) { return v.present(); }) &&
         !restarts && !drops && path.gradient_norm_penalty == 0;
}

/// The same value, of which the step itself makes no gradient.
Var without_gradient(Tape& tape, const Var& v) {
  return v.present() ? tape.constant(v.value()) : v;
}

/// The rows of what f gives for each step, one after another; zeros where it is empty.
template <class F>
Tensor joined(Tape& tape, const std::vector<const Step*>& steps, std::int64_t columns, const F& f) {
  const std::int64_t rows = steps.front()->x.shape().rows();
  const auto count = static_cast<std::int64_t>(steps.size());
  const Tensor result = tape.tensor({count * rows, columns}, steps.front()->x.dtype());
  for (std::int64_t i = 0; i < count; ++i) {
    const Tensor part = f(*steps[static_cast<std::size_t>(i)]), to = result.slice(i * rows, rows);
    if (part) {
      copy(part.reshaped(to.shape()), to);
    } else {
      zero(to);
    }
  }
  return result;
}

}  // namespace

struct RecurrentLoop::Sums {
  RecurrentParameters weights;
  Var all;  ///< an output of the weights, before the first step
  std::vector<Step> steps{};

  void add() const {
    std::vector<const Step*> reached;
    for (const Step& step : steps) {
      if (step.reached()) reached.push_back(&step);
    }
    if (reached.empty()) return;
    Tape& tape = all.tape();
    const Shape &ih = weights.weight_ih.shape(), &hh = weights.weight_hh.shape();
    const Tensor d = joined(tape, reached, ih[0], [](const Step& s) { return s.y.gates; });
    multiply(tape, weights.weight_ih.gradient(), {d, true},
             {joined(tape, reached, ih[1], [](const Step& s) { return s.x; })});
    multiply(tape, weights.weight_hh.gradient(), {d, true},
             {joined(tape, reached, hh[1], [](const Step& s) { return s.h_before; })});
    for (const Var& bias : {weights.bias_ih, weights.bias_hh}) {
      if (bias.present()) sum_columns(tape, bias.gradient(), d);
    }
  }
};

void RecurrentLoop::begin(Tape& tape, const RecurrentParameters& p) {
  // A value that no op reads: its rule, before those of all steps, runs after them.
  const Var all =
      tape.output(tape.tensor({0}, DType::f32), {p.weight_ih, p.weight_hh, p.bias_ih, p.bias_hh});
  sums_ = std::make_shared<Sums>(Sums{.weights = p, .all = all});
  all.gradient();  // so that it runs
  tape.on_backward({all}, [sums = sums_] { sums->add(); });
}

bool RecurrentLoop::covers(const Var& x, const RecurrentParameters& p) const {
  const auto same = [](const Var& a, const Var& b) {
    return a.present() == b.present() && (!a.present() || a.value().data() == b.value().data());
  };
  const RecurrentParameters& first = sums_->weights;
  return same(p.weight_ih, first.weight_ih) && same(p.weight_hh, first.weight_hh) &&
         same(p.bias_ih, first.bias_ih) && same(p.bias_hh, first.bias_hh) &&
         (sums_->steps.empty() || sums_->steps.front().x.shape() == x.shape());
}

RecurrentOutput RecurrentLoop::step(CellKind cell, Var x, const RecurrentParameters& parameters,
                                    std::span<const Var> initial, const RecurrentPath& path) {
  Tape& tape = x.tape();
  const bool one = x.shape().rank() == 3 && x.shape()[0] == 1;
  if (tape.recording() && one && can_be_summed(*cell, parameters, path)) {
    if (sums_ == nullptr) begin(tape, parameters);
    if (sums_->all.needs_gradient() && covers(x, parameters)) {
      RecurrentParameters values = parameters;
      for (Var* v : {&values.weight_ih, &values.weight_hh, &values.bias_ih, &values.bias_hh}) {
        *v = without_gradient(tape, *v);
      }
      // The step's rule must run though neither x nor the states should need a gradient.
      if (!x.needs_gradient()) x = tape.output(x.value(), {sums_->all});
      RecurrentOutput y = recurrent_sequence(cell, x, values, initial, path);
      const bool has_h = !initial.empty() && initial.front().present();
      sums_->steps.push_back(
          {.x = x.value(), .h_before = has_h ? initial.front().value() : Tensor{}, .y = y});
      return y;
    }
  }
  return recurrent_sequence(cell, x, parameters, initial, path);
}

}  // namespace carousel
