#include "engine/model/sampling.h"

#include <algorithm>
#include <cmath>

#include "kernels/sample/sample.h"

namespace carousel {

std::vector<double> softmax(std::span<const float> logits) {
  const auto largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  std::vector<double> result;
  double sum = 0;
  for (const float logit : logits) {
    result.push_back(std::exp(static_cast<double>(logit) - largest));
    sum += result.back();
  }
  for (double& probability : result) probability /= sum;
  return result;
}

void choose_tokens(const Tensor& logits, const SamplingConfig& config, const Tensor& draw,
                   const Tensor& token) {
  const auto choose = [&]<class T>(std::type_identity<T>) {
    run(logits.device(),
        Sample<T>{.logits = logits.view<T, 2>(),
                  .temperature = static_cast<float>(config.temperature),
                  .top_k = config.top_k,
                  .top_p = static_cast<float>(config.top_p),
                  .greedy = config.greedy,
                  .suppressed_token = config.suppressed_token,
                  .random = {.seed = config.seed, .step = draw.view<std::int64_t, 1>()},
                  .token = token.mutable_view<std::int32_t, 1>()});
  };
  if (logits.dtype() == DType::bf16) {
    choose(std::type_identity<bf16>{});
  } else {
    choose(std::type_identity<float>{});
  }
}

}  // namespace carousel
