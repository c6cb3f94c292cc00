#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/model.h"
#include "engine/training/optimizer.h"

namespace carousel::test {

inline constexpr std::int64_t kVocabulary = 17;

/// A window of a text that repeats itself: token n is n² mod 17.
inline Batch window(const Device& device, std::int64_t first, std::int64_t T, std::int64_t B) {
  Batch batch;
  std::vector<std::int32_t> token, target;
  for (std::int64_t t = first; t < first + T; ++t) {
    for (std::int64_t b = 0; b < B; ++b) {
      const auto text = [&](std::int64_t n) {
        const std::int64_t m = n + 5 * b;
        return static_cast<std::int32_t>(m * m % kVocabulary);
      };
      token.push_back(text(t));
      target.push_back(text(t + 1));
    }
  }
  batch.rows = B;
  batch.fields = {{"token", Tensor(device, {T, B}, DType::i32)},
                  {"target", Tensor(device, {T, B}, DType::i32)}};
  copy_from_host(batch["token"], token.data());
  copy_from_host(batch["target"], target.data());
  batch.counted = T * B;
  return batch;
}

inline float value(const Tensor& scalar) {
  float v = 0;
  copy_to_host(scalar, &v);
  return v;
}

inline std::vector<float> values(const Tensor& tensor) {
  std::vector<float> v(static_cast<std::size_t>(tensor.size()));
  copy_to_host(tensor, v.data());
  return v;
}

/// A model with its optimiser, stepped by hand.
template <class M, class Config>
struct SteppedTraining {
  SteppedTraining(const Config& config, const Device& device, DType compute = DType::f32,
                  std::int64_t batch = 3)
      : model(config, device, compute, /*seed=*/7),
        optimizer({.kind = "adam", .clip_norm = 1}, model.parameters()),
        arena(device),
        tape(arena, true),
        state(model.initial_state(batch)),
        step(device, {1}, DType::i64),
        rate(device, {1}, DType::f32) {}

  /// Forward and backward; the mean loss.
  float gradients(const Batch& batch) {
    tape.clear();
    arena.reset();
    ++steps;
    copy_from_host(step, &steps);
    Pass pass(tape, {.random = {.seed = 3, .step = step.view<std::int64_t, 1>()}});
    const Objective objective = model.objective(pass, batch, state);
    tape.backward();
    model.parameters().zero_unreached(tape);
    pass.finish();
    mean = objective.means(tape);
    return value(mean);
  }

  float train(const Batch& batch, float learning_rate) {
    const float loss = gradients(batch);
    copy_from_host(rate, &learning_rate);
    optimizer.step(rate, step, mean);
    return loss;
  }

  M model;
  Optimizer optimizer;
  Arena arena;
  Tape tape;
  State state;
  Tensor step, rate, mean;
  std::int64_t steps = 0;
};

}  // namespace carousel::test
