#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/tape/parameters.h"
#include "engine/training/weight_average.h"
#include "kernels/common/tolerance.h"

namespace carousel {

struct OptimizerConfig {
  static constexpr std::array<std::string_view, 5> kKinds{"sgd", "adam", "adamw", "rmsprop",
                                                          "adagrad"};
  std::string kind = "adamw";         ///< one of kKinds
  double momentum = 0;                ///< sgd, rmsprop
  bool nesterov = false;              ///< sgd
  double beta1 = 0.9, beta2 = 0.999;  ///< adam, adamw
  double epsilon = 1e-8;              ///< all but sgd
  double alpha = 0.99;                ///< rmsprop
  bool centered = false;              ///< rmsprop
  double rate_decay = 0;              ///< adagrad
  double initial_accumulator = 0;     ///< adagrad
  double weight_decay = 0;
  std::string groups{};            ///< settings of some parameters: see parameter_groups()
  std::int64_t average_after = 0;  ///< n of NT-ASGD: see updated(AverageTrigger); 0: no averaging
  double clip_norm = 0;            ///< of the whole gradient; 0: no clipping
  double clip_value = 0;           ///< of each element, after clip_norm; 0: no clipping
};

/// Turns gradients into new weights: the global norm, clipping, and one update of each group of
/// parameters and of their average, queued without waiting. From the first step on whose loss or gradient is not finite
/// nothing changes any more: weights and moments stay as they were before it.
class Optimizer {
 public:
  /// For materialised parameters, which must outlive it. All memory is taken here. ConfigError for
  /// an unknown kind or a hyperparameter out of range.
  Optimizer(const OptimizerConfig& config, const Parameters& parameters);

  /// Queues update number step[0], from 1. learning_rate [1] f32, step [1] i64, loss [K] f32: all
  /// on the device.
  void step(const Tensor& learning_rate, const Tensor& step, const Tensor& loss) const;

  const OptimizerConfig& config() const { return config_; }
  AveragedWeights& average() { return average_; }
  const AveragedWeights& average() const { return average_; }
  const Tensor& gradient_norm() const { return norm_; }  ///< [1] f32, before clipping
  const Tensor& finite() const { return finite_; }       ///< [1] i32, 0 from the first bad step on

  /// What must be saved, named as PyTorch's optimisers name theirs: a moment of all dense
  /// parameters is one tensor, laid out as Parameters::flat_gradients(), one of a row-sparse
  /// parameter is a tensor of its own, "exp_avg.<name>".
  std::vector<std::pair<std::string, Tensor>> state() const;
  /// The moments of one parameter, in its shape; none if it is frozen.
  std::vector<std::pair<std::string, Tensor>> state_of(std::size_t parameter) const;

  /// Of weights and moments after one update.
  Tolerance tolerance() const;

 private:
  /// Weights that one update covers: a stretch of the flat buffers, or a row-sparse parameter.
  struct Part {
    ParameterGroup group;
    Tensor weight, gradient, working;
    std::vector<Tensor> state;
    std::optional<std::size_t> row_sparse{};  ///< the parameter's index
  };
  const RowGradient* row_gradient(const Part& part) const;  ///< null of a stretch
  template <class F>
  decltype(auto) with_rule(F&& f) const;
  template <class Rule>
  void update(const Rule& rule, const Part& part, const Tensor& learning_rate,
              const Tensor& step) const;

  OptimizerConfig config_;
  const Parameters& parameters_;
  std::vector<const char*> names_;  ///< of the rule's states
  std::vector<Tensor> flat_state_;  ///< [N] each
  std::vector<Part> parts_;
  AveragedWeights average_;
  Tensor scratch_, norm_, scale_, finite_;
};

}  // namespace carousel
