#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/comparison/step_trace.h"
#include "kernels/common/tolerance.h"

namespace carousel {

/// How products round: the coarser of two sides decides what they may differ by. Where both round
/// alike in the same order, not a bit may differ.
enum class Rounding : std::uint8_t { alike, f32, tf32, bf16 };

/// How far two sides may be apart in a tensor of a step that both began with the same numbers:
///
///     |a − b| ≤ absolute·max|a| + relative·|a|
///
/// for every element, with the maximum over the tensor of the first side. Nothing that is not
/// finite is within it.
Tolerance step_tolerance(const TracedTensor& tensor, Rounding rounding);

/// An element on both sides.
struct Difference {
  std::int64_t step = 0;   ///< optimiser step, from 1
  std::int64_t time = -1;  ///< time step, from 0; −1 if the tensor has none
  std::string where;       ///< "time step 12, row 3, unit 17"; empty for a single number
  double a = 0, b = 0;
  double allowed = 0;  ///< |a − b| may be this much

  double error() const;
  double relative() const;  ///< to |a|
  double excess() const;    ///< error in units of what is allowed; infinite if not both are finite
};

/// What became of one tensor over all steps.
struct TensorVerdict {
  std::string name;
  Phase phase = Phase::forward;
  Tolerance tolerance{};                ///< in the last step
  std::optional<Difference> first{};    ///< the first beyond the tolerance, in order of computation
  Difference largest{};                 ///< by excess
  std::vector<double> worst_by_time{};  ///< a sequence's largest excess at each time step

  bool holds() const { return !first; }
};

/// Compares two sides that train, tensor by tensor.
class Comparison {
 public:
  explicit Comparison(Rounding rounding) : rounding_(rounding) {}

  /// What both sides computed in a step, or in a further part of it. Error unless the two traces
  /// have the same tensors.
  void add(std::int64_t step, const Trace& a, const Trace& b);

  bool holds() const { return !first_wrong_; }
  const std::vector<TensorVerdict>& tensors() const { return tensors_; }  ///< as computed
  /// The tensor with the first difference beyond its tolerance, in the order of computation: what
  /// comes after it may be wrong only because of it. Null if all hold.
  const TensorVerdict* first_wrong() const;
  /// The tensor that came nearest to its tolerance, or went furthest beyond it; null if there is
  /// none.
  const TensorVerdict* worst() const;

 private:
  TensorVerdict& verdict_of(const TracedTensor& tensor);

  Rounding rounding_;
  std::vector<TensorVerdict> tensors_;
  std::optional<std::size_t> first_wrong_;
};

/// The next step of two sides that stand at the same batch. Errors do not pile up: `b` begins the
/// step with what `a` has, and updates its weights by the gradients of `a`.
void compare_step(TracedTraining& a, TracedTraining& b, Comparison& comparison);

/// The next step of two sides that stand alike, on one device in one precision, and should stay so.
/// Nothing is set right between them or between steps.
void compare_whole_step(TracedTraining& a, TracedTraining& b, Comparison& comparison);

/// How far two sides have come apart that began alike and then ran freely. Reported, not judged:
/// errors feed on themselves, by how much is the model's and the optimiser's affair.
struct Drift {
  double loss_a = 0, loss_b = 0;  ///< of the last step, nats per token
  double weights = 0;  ///< root mean square of the weights' difference, relative to the weights'
};
Drift drift(const TracedTraining& a, const TracedTraining& b);

}  // namespace carousel
