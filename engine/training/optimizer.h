#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/tape/tensor.h"
#include "kernels/common/tolerance.h"

namespace carousel {

struct OptimizerConfig {
  std::string kind = "adamw";                         ///< sgd | adam | adamw
  double momentum = 0;                                ///< sgd
  bool nesterov = false;                              ///< sgd
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  ///< adam, adamw
  double weight_decay = 0;
  double clip_norm = 0;   ///< of the whole gradient; 0: no clipping
  double clip_value = 0;  ///< of each element, after clip_norm; 0: no clipping
};

/// Turns gradients into new weights: the global norm, clipping, and one update of all parameters,
/// queued without waiting. After a step whose loss or gradient was not finite nothing changes any
/// more: whoever trains finds weights and moments as they were before it.
class Optimizer {
 public:
  /// For the flat buffers of Parameters, [N]; `working` may be empty. All memory is taken here.
  /// ConfigError for an unknown kind.
  Optimizer(const OptimizerConfig& config, Tensor weights, Tensor gradients, Tensor working);

  /// Queues update number step[0], from 1. learning_rate [1] f32, step [1] i64, loss [1] f32: all
  /// on the device.
  void step(const Tensor& learning_rate, const Tensor& step, const Tensor& loss) const;

  /// Of a step's new weights and state, from the same gradients.
  Tolerance tolerance() const;
  const Tensor& gradient_norm() const { return norm_; }  ///< [1] f32, before clipping
  const Tensor& finite() const { return finite_; }       ///< [1] i32, 0 from the first bad step on

  /// What must be saved, named as PyTorch's optimisers name theirs.
  std::vector<std::pair<std::string, Tensor>> state() const;

 private:
  bool is_sgd() const { return config_.kind == "sgd"; }
  OptimizerConfig config_;
  Tensor weights_, gradients_, working_;
  Tensor first_, second_;  ///< velocity, or Adam's two moments
  Tensor scratch_, norm_, scale_, finite_;
};

}  // namespace carousel
