#include "engine/comparison/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "kernels/common/check.h"

namespace carousel {
namespace {

double largest_of(const std::vector<float>& values) {
  double largest = 0;
  for (const float v : values) largest = std::max(largest, std::abs(static_cast<double>(v)));
  return largest;
}

double root_mean_square(const std::vector<float>& values) {
  double sum = 0;
  for (const float v : values) sum += static_cast<double>(v) * static_cast<double>(v);
  return values.empty() ? 0 : std::sqrt(sum / static_cast<double>(values.size()));
}

/// The error in units of what is allowed; infinite unless both numbers are finite.
double excess_of(double a, double b, double allowed) {
  if (!std::isfinite(a) || !std::isfinite(b)) return std::numeric_limits<double>::infinity();
  return a == b ? 0 : std::abs(a - b) / allowed;
}

std::string place(const TracedTensor& tensor, std::int64_t index) {
  static constexpr const char* kNames[3][3] = {
      {"time step", "row", "unit"}, {"row", "unit", ""}, {"row", "column", ""}};
  const Shape& shape = tensor.shape;
  if (shape.size() == 1) return {};
  if (tensor.axes == Axes::parameter && shape.rank() == 1) return fmt::format("element {}", index);
  std::string text;
  std::int64_t stride = shape.size();
  for (int i = 0; i < shape.rank() && i < 3; ++i) {
    stride /= shape[i];
    text += fmt::format("{}{} {}", i == 0 ? "" : ", ", kNames[static_cast<int>(tensor.axes)][i],
                        index / stride);
    index %= stride;
  }
  return text;
}

/// What the contracts allow of products that round so. tf32 has two bits more than bf16.
Tolerance of(const TracedTensor& tensor, Rounding rounding) {
  const Tolerance &coarse = tensor.tolerance.bf16, &inputs = tensor.rounded_inputs;
  switch (rounding) {
    case Rounding::alike:
      return {};
    case Rounding::f32:
      return tensor.tolerance.f32;
    case Rounding::tf32:
      return {.absolute = coarse.absolute / 4, .relative = coarse.relative / 4};
    case Rounding::mixed:
      return {.absolute = std::hypot(coarse.absolute, inputs.absolute),
              .relative = std::hypot(coarse.relative, inputs.relative)};
    case Rounding::bf16:
      break;
  }
  return coarse;
}

/// Two traced tensors of one name, element by element in the order of computation.
class Pair {
 public:
  Pair(std::int64_t step, const TracedTensor& a, const TracedTensor& b, const Tolerance& tolerance)
      : step_(step), a_(a), b_(b), tolerance_(tolerance), scale_(largest_of(a.values)) {}

  void judge(TensorVerdict& verdict) {
    const bool is_sequence = a_.axes == Axes::sequence;
    const std::int64_t steps = is_sequence ? a_.shape[0] : 1;
    const std::int64_t slice = steps == 0 ? 0 : a_.shape.size() / steps;
    if (is_sequence && std::ssize(verdict.worst_by_time) < steps) {
      verdict.worst_by_time.resize(static_cast<std::size_t>(steps), 0.0);
    }
    double largest = verdict.largest.step == 0 ? -1 : verdict.largest.excess();
    for (std::int64_t i = 0; i < steps; ++i) {
      const std::int64_t t = a_.phase == Phase::backward ? steps - 1 - i : i;
      double worst = 0;
      for (std::int64_t n = t * slice; n < (t + 1) * slice; ++n) {
        const double excess = excess_at(n);
        worst = std::max(worst, excess);
        if (excess > largest) {
          largest = excess;
          verdict.largest = difference(n, t);
        }
        if (!(excess <= 1) && !first_) first_ = difference(n, t);
      }
      if (is_sequence) {
        double& so_far = verdict.worst_by_time[static_cast<std::size_t>(t)];
        so_far = std::max(so_far, worst);
      }
    }
    if (!verdict.first) verdict.first = first_;
  }

  const std::optional<Difference>& first() const { return first_; }

 private:
  double a(std::int64_t i) const { return a_.values[static_cast<std::size_t>(i)]; }
  double b(std::int64_t i) const { return b_.values[static_cast<std::size_t>(i)]; }
  double allowed(std::int64_t i) const {
    return tolerance_.absolute * scale_ + tolerance_.relative * std::abs(a(i));
  }
  double excess_at(std::int64_t i) const {
    const bool to_the_bit = tolerance_.absolute == 0 && tolerance_.relative == 0;
    if (to_the_bit && std::signbit(a(i)) != std::signbit(b(i))) {  // 0 and −0 are equal numbers
      return std::numeric_limits<double>::infinity();
    }
    return excess_of(a(i), b(i), allowed(i));
  }
  Difference difference(std::int64_t i, std::int64_t time) const {
    return {.step = step_,
            .time = a_.axes == Axes::sequence ? time : -1,
            .where = place(a_, i),
            .a = a(i),
            .b = b(i),
            .allowed = allowed(i)};
  }

  std::int64_t step_;
  const TracedTensor &a_, &b_;
  Tolerance tolerance_;
  double scale_;
  std::optional<Difference> first_{};
};

std::vector<float> all_weights(const Parameters& parameters) {
  std::vector<float> all;
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    const std::vector<float> values = host_floats(parameters.weight(i));
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

}  // namespace

double Difference::error() const { return std::abs(a - b); }

double Difference::relative() const { return error() == 0 ? 0 : error() / std::abs(a); }

double Difference::excess() const { return excess_of(a, b, allowed); }

Tolerance step_tolerance(const TracedTensor& tensor, Rounding rounding) {
  if (rounding == Rounding::alike) return {};
  // Both sides may be off by what the contracts allow, hence the 2. Contracts speak of numbers up
  // to about 1, and errors scale with the numbers: hence the largest as the unit, rather than their
  // root mean square, which says little of a sum that a few large terms decide. (A contract of a
  // backward pass covers the errors of its forward pass, so that backward tolerances start anew.)
  const Tolerance allowed = of(tensor, rounding);
  return {.absolute = 2 * allowed.absolute, .relative = 2 * allowed.relative};
}

TensorVerdict& Comparison::verdict_of(const TracedTensor& tensor) {
  const auto found = std::find_if(tensors_.begin(), tensors_.end(),
                                  [&](const TensorVerdict& v) { return v.name == tensor.name; });
  if (found != tensors_.end()) return *found;
  tensors_.push_back({.name = tensor.name, .phase = tensor.phase});
  return tensors_.back();
}

void Comparison::add(std::int64_t step, const Trace& a, const Trace& b) {
  // Place of the first difference of each tensor that has one.
  using Order = std::tuple<int, std::int64_t, std::size_t>;  // stage, time as computed, tensor
  std::optional<Order> first;
  for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    if (i >= a.size() || i >= b.size() || a[i].name != b[i].name || a[i].shape != b[i].shape) {
      throw Error(fmt::format("compare: value {} of step {} is {} on one side and {} on the other",
                              i, step,
                              i < a.size() ? a[i].name + " " + a[i].shape.text() : "missing",
                              i < b.size() ? b[i].name + " " + b[i].shape.text() : "missing"));
    }
    TensorVerdict& verdict = verdict_of(a[i]);
    verdict.tolerance = step_tolerance(a[i], rounding_);
    Pair pair(step, a[i], b[i], verdict.tolerance);
    pair.judge(verdict);
    if (!pair.first()) continue;
    const std::int64_t time = pair.first()->time;
    const Order order{a[i].stage, a[i].phase == Phase::backward ? -time : time,
                      static_cast<std::size_t>(&verdict - tensors_.data())};
    if (!first || order < *first) first = order;
  }
  if (first && !first_wrong_) first_wrong_ = std::get<2>(*first);
}

const TensorVerdict* Comparison::first_wrong() const {
  return first_wrong_ ? &tensors_[*first_wrong_] : nullptr;
}

void compare_whole_step(TracedTraining& a, TracedTraining& b, Comparison& comparison) {
  const Trace trace = a.whole_step();
  comparison.add(a.run().step, trace, b.whole_step());
}

void compare_step(TracedTraining& a, TracedTraining& b, Comparison& comparison) {
  b.start_as(a);
  const std::size_t count = a.begin();
  b.begin();
  Trace of_a, of_b;
  for (std::size_t k = 0; k < count; ++k) {
    of_a = a.forward(k), of_b = b.forward(k);
    b.take_values(a);  // else a function with a kink, as ReLU, has another gradient near it
    of_a = a.backward(k, std::move(of_a)), of_b = b.backward(k, std::move(of_b));
  }
  comparison.add(a.run().step, of_a, of_b);
  b.take_gradients(a);
  const Trace after = a.update();
  comparison.add(a.run().step, after, b.update());
}

Drift drift(const TracedTraining& a, const TracedTraining& b) {
  const std::vector<float> x = all_weights(a.run().model.parameters());
  std::vector<float> difference = all_weights(b.run().model.parameters());
  for (std::size_t i = 0; i < x.size(); ++i) difference[i] -= x[i];
  return {.loss_a = a.result().loss,
          .loss_b = b.result().loss,
          .weights = root_mean_square(difference) / root_mean_square(x)};
}

const TensorVerdict* Comparison::worst() const {
  const auto found = std::max_element(tensors_.begin(), tensors_.end(),
                                      [](const TensorVerdict& x, const TensorVerdict& y) {
                                        return x.largest.excess() < y.largest.excess();
                                      });
  return found == tensors_.end() ? nullptr : &*found;
}

}  // namespace carousel
