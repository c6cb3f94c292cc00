#include "engine/model/generator.h"

#include "kernels/common/check.h"
#include "kernels/sample/sample.h"

namespace carousel {

Generator::Generator(Model& model, const SamplingConfig& config)
    : model_(model),
      config_(config),
      device_(model.parameters().flat_weights().device()),
      arena_(device_),
      tape_(arena_, false),
      state_(model.initial_state(1)),
      token_(device_, {1, 1}, DType::i32),
      position_(device_, {1}, DType::i64) {}

void Generator::step() {
  tape_.clear();
  arena_.reset();
  Pass pass(tape_, {});
  logits_ = model_.next_logits(pass, token_, state_);
  pass.finish();
}

void Generator::read(std::int32_t token) {
  copy_from_host(token_, &token);
  step();
}

std::int32_t Generator::next() {
  copy_from_host(position_, &chosen_);
  ++chosen_;
  const auto choose = [&]<class T>(std::type_identity<T>) {
    run(device_, Sample<T>{
                     .logits = logits_.view<T, 2>(),
                     .temperature = static_cast<float>(config_.temperature),
                     .top_k = config_.top_k,
                     .top_p = static_cast<float>(config_.top_p),
                     .greedy = config_.greedy,
                     .suppressed_token = config_.suppressed_token,
                     .random = {.seed = config_.seed, .step = position_.view<std::int64_t, 1>()},
                     .token = token_.mutable_view<std::int32_t, 1>(),
                 });
  };
  if (logits_.dtype() == DType::bf16) {
    choose(std::type_identity<bf16>{});
  } else {
    choose(std::type_identity<float>{});
  }
  std::int32_t token = 0;
  copy_to_host(token_, &token);  // waits for the device: the caller prints each token as it comes
  if (token < 0) throw Error("generate: the model's logits are not finite numbers");
  step();
  return token;
}

}  // namespace carousel
