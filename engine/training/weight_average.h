#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "engine/tape/parameters.h"

namespace carousel {

/// When averaging begins: the non-monotonic trigger of NT-ASGD (Merity, Keskar & Socher 2018,
/// arXiv:1708.02182, algorithm 1; which evaluations are compared is as in the authors' program).
struct AverageTrigger {
  double lowest = std::numeric_limits<double>::infinity();  ///< of all costs but the recent ones
  std::vector<double> recent{};                             ///< of the last n evaluations
  std::int64_t first = 0;  ///< the step whose weights are the first in the mean; 0: not begun
  bool operator==(const AverageTrigger&) const = default;
};

/// The trigger after an evaluation of the weights of `step`: averaging begins if `cost` is higher than
/// the lowest of all evaluations before, the last n among them left out. n = 0: never. It does not
/// end again.
AverageTrigger updated(AverageTrigger trigger, std::int64_t n, double cost, std::int64_t step);

/// The running mean of the weights of a model, by WeightAverage; frozen parameters are their own
/// mean. Training goes on with the weights; evaluation, samples and what a checkpoint shows others
/// have the mean, once it has begun.
class AveragedWeights {
 public:
  /// All memory is taken here; `wanted` false: none, and the mean never begins. The parameters must
  /// outlive it.
  AveragedWeights(const Parameters& parameters, bool wanted);

  bool begun() const { return begun_; }
  /// The mean is the weights as they stand, after update number `first`.
  void begin(std::int64_t first);
  /// The same for a mean that a checkpoint will bring.
  void restore(std::int64_t first);

  /// Queues the mean's update after the weights' update number step[0]; `finite` as in the Optimizer.
  void update(const Tensor& step, const Tensor& finite) const;
  /// The parameters have the mean as weights, and the mean's place has the weights; called again, all
  /// is as before to the last bit. Does nothing before the mean has begun.
  void exchange() const;

  /// The mean of a parameter, in its shape.
  Tensor of(std::size_t parameter) const;

 private:
  struct Part {
    Tensor weight, average;  ///< the trained stretch of the flat buffer, or a row-sparse parameter
  };
  const Parameters& parameters_;
  std::vector<Part> parts_;
  Tensor flat_;   ///< the mean of the stretch; empty if there is none
  Tensor first_;  ///< [1] i64 on the device
  bool begun_ = false;
};

}  // namespace carousel
