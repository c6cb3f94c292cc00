#include "engine/training/weight_average.h"

#include <algorithm>

#include "kernels/weight_update/weight_update.h"

namespace carousel {

AverageTrigger updated(AverageTrigger trigger, std::int64_t n, double cost, std::int64_t step) {
  if (n == 0 || trigger.first != 0) return trigger;
  if (cost > trigger.lowest) return {.first = step};
  trigger.recent.push_back(cost);
  if (static_cast<std::int64_t>(trigger.recent.size()) > n) {
    if (trigger.recent.front() < trigger.lowest) trigger.lowest = trigger.recent.front();
    trigger.recent.erase(trigger.recent.begin());
  }
  return trigger;
}

AveragedWeights::AveragedWeights(const Parameters& parameters, bool wanted)
    : parameters_(parameters) {
  if (!wanted) return;
  const auto add = [&](const Tensor& weight) {
    parts_.push_back({weight, Tensor(parameters.device(), weight.shape(), DType::f32)});
  };
  const std::int64_t trained = parameters.flat_gradients().size();
  if (trained > 0) {
    add(parameters.flat_weights().slice(0, trained));
    flat_ = parts_.front().average;
  }
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    if (parameters.row_gradient(i) != nullptr) add(parameters.weight(i));
  }
  first_ = Tensor(parameters.device(), {1}, DType::i64);
  const std::int64_t none = 0;
  copy_from_host(first_, &none);
}

void AveragedWeights::restore(std::int64_t first) {
  begun_ = true;
  copy_from_host(first_, &first);
}

void AveragedWeights::begin(std::int64_t first) {
  restore(first);
  for (const Part& part : parts_) copy(part.weight, part.average);
}

void AveragedWeights::update(const Tensor& step, const Tensor& finite) const {
  for (const Part& part : parts_) {
    run(parameters_.device(), WeightAverage<float>{.weight = part.weight.view<float, 1>(),
                                                   .average = part.average.mutable_view<float, 1>(),
                                                   .step = step.view<std::int64_t, 1>(),
                                                   .first = first_.view<std::int64_t, 1>(),
                                                   .finite = finite.view<std::int32_t, 1>()});
  }
}

void AveragedWeights::exchange() const {
  if (!begun_) return;
  for (const Part& part : parts_) {
    const Tensor held(parameters_.device(), part.weight.shape(), DType::f32);
    copy(part.weight, held);
    copy(part.average, part.weight);
    copy(held, part.average);
  }
  parameters_.refresh_working();
}

Tensor AveragedWeights::of(std::size_t parameter) const {
  const Tensor& weight = parameters_.weight(parameter);
  for (const Part& part : parts_) {
    if (part.weight.data() == weight.data() && part.weight.shape() == weight.shape()) {
      return part.average;
    }
  }
  const Tensor mean = flat_ ? parameters_.part_of(flat_, parameter) : Tensor{};
  return mean ? mean : weight;
}

}  // namespace carousel
