#include "engine/training/optimizer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "engine/ops/row_gradient.h"
#include "kernels/common/check.h"
#include "kernels/copy/copy.h"
#include "kernels/global_norm/global_norm.h"
#include "kernels/weight_update/weight_update.h"

namespace carousel {
namespace {

Tensor filled(const Device& device, const Shape& shape, float value) {
  Tensor result(device, shape, DType::f32);
  run(device, Fill<float>{.to = result.mutable_view<float, 1>(), .value = value});
  return result;
}

/// The stretch of a flat buffer as one row of a matrix; empty if the buffer is.
Tensor as_row(const Tensor& flat, const Parameters::Stretch& stretch) {
  return flat ? flat.slice(stretch.first, stretch.count).reshaped({1, stretch.count}) : Tensor{};
}

}  // namespace

template <class F>
decltype(auto) Optimizer::with_rule(F&& f) const {
  if (config_.kind == "sgd") {
    if (config_.momentum == 0) return f(Sgd{});
    return f(Momentum{.momentum = config_.momentum, .nesterov = config_.nesterov});
  }
  if (config_.kind == "rmsprop") {
    const auto rmsprop = [&]<bool centered, bool with_momentum>() {
      return f(RmsProp<centered, with_momentum>{
          .alpha = config_.alpha, .epsilon = config_.epsilon, .momentum = config_.momentum});
    };
    if (config_.centered) {
      return config_.momentum == 0 ? rmsprop.template operator()<true, false>()
                                   : rmsprop.template operator()<true, true>();
    }
    return config_.momentum == 0 ? rmsprop.template operator()<false, false>()
                                 : rmsprop.template operator()<false, true>();
  }
  if (config_.kind == "adagrad") {
    return f(Adagrad{.epsilon = config_.epsilon,
                     .rate_decay = config_.rate_decay,
                     .initial_state = config_.initial_accumulator});
  }
  return f(Adam{.beta1 = config_.beta1,
                .beta2 = config_.beta2,
                .epsilon = config_.epsilon,
                .decoupled = config_.kind == "adamw"});
}

Optimizer::Optimizer(const OptimizerConfig& config, const Parameters& parameters)
    : config_(config),
      parameters_(parameters),
      average_(parameters, config.average_after > 0),
      norm_(parameters.device(), {1}, DType::f32),
      scale_(parameters.device(), {1}, DType::f32),
      finite_(parameters.device(), {1}, DType::i32) {
  const auto& kinds = OptimizerConfig::kKinds;
  if (std::find(kinds.begin(), kinds.end(), config_.kind) == kinds.end()) {
    throw ConfigError(fmt::format("optimizer.kind is '{}', expected one of {}", config_.kind,
                                  fmt::join(kinds, ", ")));
  }
  if (config_.kind == "sgd" && config_.nesterov && config_.momentum == 0) {
    throw ConfigError("optimizer.nesterov is set with momentum 0, expected a positive momentum");
  }
  float initial = 0;  // of all states: no rule with another one has more than one
  with_rule([&](const auto& rule) {
    rule.check();
    names_.assign(rule.kStateNames.begin(), rule.kStateNames.end());
    if constexpr (requires { rule.initial_state; })
      initial = static_cast<float>(rule.initial_state);
  });
  for (std::size_t i = 0; i < names_.size(); ++i) {
    flat_state_.push_back(
        filled(parameters.device(), parameters.flat_gradients().shape(), initial));
  }
  for (const Parameters::Stretch& stretch : parameters.stretches()) {
    Part part{.group = stretch.group,
              .weight = as_row(parameters.flat_weights(), stretch),
              .gradient = as_row(parameters.flat_gradients(), stretch),
              .working = as_row(parameters.flat_working(), stretch),
              .state = {}};
    for (const Tensor& flat : flat_state_) part.state.push_back(as_row(flat, stretch));
    parts_.push_back(std::move(part));
  }
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    if (parameters.row_gradient(i) == nullptr) continue;
    Part part{.group = parameters.group(i),
              .weight = parameters.weight(i),
              .gradient = {},
              .working = parameters.working(i),
              .state = {},
              .row_sparse = i};
    for (std::size_t s = 0; s < names_.size(); ++s) {
      part.state.push_back(filled(parameters.device(), part.weight.shape(), initial));
    }
    parts_.push_back(std::move(part));
  }
  const auto gradients = 1 + static_cast<std::int64_t>(parts_.size());
  scratch_ = Tensor(parameters.device(), {kGlobalNormPartials * gradients}, DType::f64);
  const std::int32_t fine = 1;
  copy_from_host(finite_, &fine);
}

const RowGradient* Optimizer::row_gradient(const Part& part) const {
  return part.row_sparse ? parameters_.row_gradient(*part.row_sparse) : nullptr;
}

void Optimizer::step(const Tensor& learning_rate, const Tensor& step, const Tensor& loss) const {
  std::vector<RowSparseGradient<float>> row_sparse;
  for (const Part& part : parts_) {
    const RowGradient* const rows = row_gradient(part);
    if (rows == nullptr || !rows->present()) continue;
    row_sparse.push_back({rows->values.view<float, 2>(), rows->count.view<std::int32_t, 1>()});
  }
  run(parameters_.device(),
      GlobalNorm<float>{.gradient = parameters_.flat_gradients().view<float, 1>(),
                        .row_sparse = row_sparse,
                        .loss = loss.view<float, 1>(),
                        .clip_norm = config_.clip_norm,
                        .keep_failure = true,
                        .scratch = scratch_.mutable_view<double, 1>(),
                        .norm = norm_.mutable_view<float, 1>(),
                        .gradient_scale = scale_.mutable_view<float, 1>(),
                        .finite = finite_.mutable_view<std::int32_t, 1>()});
  with_rule([&](const auto& rule) {
    for (const Part& part : parts_) update(rule, part, learning_rate, step);
  });
  average_.update(step, finite_);
}

template <class Rule>
void Optimizer::update(const Rule& rule, const Part& part, const Tensor& learning_rate,
                       const Tensor& step) const {
  const RowGradient* const rows = row_gradient(part);
  if (rows != nullptr && !rows->present()) return;  // no row was touched
  WeightUpdate<Rule, float> op{
      .rule = rule,
      .weight = as_rows(part.weight).mutable_view<float, 2>(),
      .gradient = part.gradient.view<float, 2>(),
      .working = as_rows(part.working).mutable_view<bf16, 2>(),
      .learning_rate = learning_rate.view<float, 1>(),
      .step = step.view<std::int64_t, 1>(),
      .gradient_scale = scale_.view<float, 1>(),
      .finite = finite_.view<std::int32_t, 1>(),
      .learning_rate_factor = part.group.learning_rate_factor,
      .weight_decay = part.group.weight_decay.value_or(config_.weight_decay),
      .clip_value = config_.clip_value};
  if (rows != nullptr) {
    op.gradient = rows->values.view<float, 2>();
    op.row = rows->row.view<std::int32_t, 1>();
    op.row_count = rows->count.view<std::int32_t, 1>();
  }
  for (std::size_t s = 0; s < Rule::kStates; ++s) {
    op.state[s] = as_rows(part.state[s]).template mutable_view<float, 2>();
  }
  run(parameters_.device(), op);
}

std::vector<std::pair<std::string, Tensor>> Optimizer::state() const {
  std::vector<std::pair<std::string, Tensor>> result;
  for (std::size_t s = 0; s < names_.size(); ++s) result.emplace_back(names_[s], flat_state_[s]);
  for (const Part& part : parts_) {
    for (std::size_t s = 0; s < names_.size() && part.row_sparse; ++s) {
      result.emplace_back(names_[s] + ("." + parameters_.name(*part.row_sparse)), part.state[s]);
    }
  }
  return result;
}

std::vector<std::pair<std::string, Tensor>> Optimizer::state_of(std::size_t parameter) const {
  std::vector<std::pair<std::string, Tensor>> result;
  for (const Part& part : parts_) {
    for (std::size_t s = 0; s < names_.size() && part.row_sparse == parameter; ++s) {
      result.emplace_back(names_[s], part.state[s]);
    }
  }
  for (std::size_t s = 0; s < names_.size(); ++s) {
    const Tensor state = parameters_.part_of(flat_state_[s], parameter);
    if (state) result.emplace_back(names_[s], state);
  }
  return result;
}

Tolerance Optimizer::tolerance() const {
  return with_rule([](const auto& rule) { return rule.kTolerance; });
}

}  // namespace carousel
