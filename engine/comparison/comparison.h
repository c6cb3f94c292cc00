#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/comparison/step_trace.h"
#include "kernels/common/tolerance.h"

namespace carousel {

/// How products round on the coarser of two sides, which decides the tolerance. `alike`: both sides
/// compute the same operations in the same order, and no bit may differ. `mixed`: bf16 beside a finer
/// side, so that the inputs of ops differ, too.
enum class Rounding : std::uint8_t { alike, f32, tf32, bf16, mixed };

/// The tolerance for a tensor of a step that both sides begin with the same numbers:
///
///     |a − b| ≤ absolute·max|a| + relative·|a|
///
/// for every element, with the maximum over the tensor of the first side. Numbers that are not
/// finite always break it.
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

/// The result for one tensor over all steps.
struct TensorVerdict {
  std::string name;
  Phase phase = Phase::forward;
  Tolerance tolerance{};                ///< in the last step
  std::optional<Difference> first{};    ///< the first beyond the tolerance, in order of computation
  Difference largest{};                 ///< by excess
  std::vector<double> worst_by_time{};  ///< a sequence's largest excess at each time step

  bool holds() const { return !first; }
};

/// Compares the training steps of two sides, tensor by tensor.
class Comparison {
 public:
  explicit Comparison(Rounding rounding) : rounding_(rounding) {}

  /// Compares what both sides computed in a step, or in a part of it. Error unless the two traces
  /// have the same tensors.
  void add(std::int64_t step, const Trace& a, const Trace& b);

  bool holds() const { return !first_wrong_; }
  const std::vector<TensorVerdict>& tensors() const { return tensors_; }  ///< as computed
  /// The tensor with the first difference beyond its tolerance, in the order of computation; later
  /// differences may follow from it. Null if all hold.
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

/// Runs and compares the next step of two sides that are at the same batch. Errors do not
/// accumulate: `b` begins the step with the weights and states of `a`, its backward pass with what the
/// forward pass of `a` computed, and it updates with the gradients of `a`.
void compare_step(TracedTraining& a, TracedTraining& b, Comparison& comparison);

/// Runs and compares the next step of two sides on one device and in one precision, which began
/// with equal numbers and must stay equal. Nothing is copied between them.
void compare_whole_step(TracedTraining& a, TracedTraining& b, Comparison& comparison);

/// The distance between two sides that began with equal numbers and then ran freely. It is reported
/// and has no tolerance, because the growth of errors depends on the model and the optimiser.
struct Drift {
  double loss_a = 0, loss_b = 0;  ///< of the last step, nats per target
  double weights = 0;  ///< root mean square of the weights' difference, relative to the weights'
};
Drift drift(const TracedTraining& a, const TracedTraining& b);

}  // namespace carousel
