#include "engine/training/optimizer.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/adam/adam.h"
#include "kernels/common/check.h"
#include "kernels/copy/copy.h"
#include "kernels/global_norm/global_norm.h"
#include "kernels/sgd/sgd.h"

namespace carousel {
namespace {

Tensor zeros(const Tensor& like) {
  Tensor result(like.device(), like.shape(), DType::f32);
  run(like.device(), Fill<float>{.to = result.mutable_view<float, 1>(), .value = 0});
  return result;
}

}  // namespace

Optimizer::Optimizer(const OptimizerConfig& config, Tensor weights, Tensor gradients,
                     Tensor working)
    : config_(config),
      weights_(std::move(weights)),
      gradients_(std::move(gradients)),
      working_(std::move(working)),
      scratch_(weights_.device(), {kGlobalNormPartials}, DType::f64),
      norm_(weights_.device(), {1}, DType::f32),
      scale_(weights_.device(), {1}, DType::f32),
      finite_(weights_.device(), {1}, DType::i32) {
  if (config_.kind != "sgd" && config_.kind != "adam" && config_.kind != "adamw") {
    throw ConfigError(
        fmt::format("optimizer.kind is '{}', expected sgd, adam or adamw", config_.kind));
  }
  if (!is_sgd() || config_.momentum != 0) first_ = zeros(weights_);
  if (!is_sgd()) second_ = zeros(weights_);
  const std::int32_t fine = 1;
  copy_from_host(finite_, &fine);
}

void Optimizer::step(const Tensor& learning_rate, const Tensor& step, const Tensor& loss) const {
  const Device& device = weights_.device();
  run(device, GlobalNorm<float>{.gradient = gradients_.view<float, 1>(),
                                .loss = loss.view<float, 1>(),
                                .clip_norm = config_.clip_norm,
                                .keep_failure = true,
                                .scratch = scratch_.mutable_view<double, 1>(),
                                .norm = norm_.mutable_view<float, 1>(),
                                .gradient_scale = scale_.mutable_view<float, 1>(),
                                .finite = finite_.mutable_view<std::int32_t, 1>()});
  if (is_sgd()) {
    run(device, Sgd<float>{.weight = weights_.mutable_view<float, 1>(),
                           .gradient = gradients_.view<float, 1>(),
                           .velocity = first_.mutable_view<float, 1>(),
                           .working = working_.mutable_view<bf16, 1>(),
                           .learning_rate = learning_rate.view<float, 1>(),
                           .gradient_scale = scale_.view<float, 1>(),
                           .finite = finite_.view<std::int32_t, 1>(),
                           .momentum = config_.momentum,
                           .weight_decay = config_.weight_decay,
                           .clip_value = config_.clip_value,
                           .nesterov = config_.nesterov});
    return;
  }
  run(device, Adam<float>{.weight = weights_.mutable_view<float, 1>(),
                          .gradient = gradients_.view<float, 1>(),
                          .first_moment = first_.mutable_view<float, 1>(),
                          .second_moment = second_.mutable_view<float, 1>(),
                          .working = working_.mutable_view<bf16, 1>(),
                          .learning_rate = learning_rate.view<float, 1>(),
                          .step = step.view<std::int64_t, 1>(),
                          .gradient_scale = scale_.view<float, 1>(),
                          .finite = finite_.view<std::int32_t, 1>(),
                          .beta1 = config_.beta1,
                          .beta2 = config_.beta2,
                          .epsilon = config_.epsilon,
                          .weight_decay = config_.weight_decay,
                          .clip_value = config_.clip_value,
                          .decoupled = config_.kind == "adamw"});
}

Tolerance Optimizer::tolerance() const { return is_sgd() ? kSgdTolerance : kAdamTolerance; }

std::vector<std::pair<std::string, Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, Tensor>> result;
  if (is_sgd()) {
    if (first_) result.emplace_back("momentum_buffer", first_);
  } else {
    result.emplace_back("exp_avg", first_);
    result.emplace_back("exp_avg_sq", second_);
  }
  return result;
}

}  // namespace carousel
