#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <utility>

#include "engine/batches/batch_plan.h"
#include "engine/model/model.h"
#include "tests/support/tensors.h"

namespace carousel::test {

/// Batches that a function makes for each position.
class ScriptedBatches final : public BatchSource {
 public:
  using Make = std::function<Batch(const DataPosition&)>;
  explicit ScriptedBatches(Make make, std::int64_t per_epoch = std::int64_t{1} << 40)
      : make_(std::move(make)), per_epoch_(per_epoch) {}

  Batch next() override { return make_(std::exchange(position_, after(position_, per_epoch_))); }
  DataPosition position() const override { return position_; }
  void seek(const DataPosition& position) override { position_ = position; }
  std::int64_t batches_per_epoch() const override { return per_epoch_; }
  std::int64_t counted_per_epoch() const override { return per_epoch_; }

 private:
  Make make_;
  std::int64_t per_epoch_;
  DataPosition position_;
};

/// What a batch of one row says of itself: its loss, how many targets count in it, and whether a
/// state is carried into it.
struct Given {
  float loss = 1;
  std::int64_t counted = 1;
  bool first = false;
};

/// Batches whose field "loss" [1] holds what is given for the position. All lie at one address.
inline ScriptedBatches::Make loss_batches(const Device& device,
                                          std::function<Given(const DataPosition&)> given) {
  return [value = Tensor(device, {1}, DType::f32),
          given = std::move(given)](const DataPosition& position) {
    const Given batch = given(position);
    copy_from_host(value, &batch.loss);
    return Batch{
        .rows = 1, .fields = {{"loss", value}}, .first = batch.first, .counted = batch.counted};
  };
}

/// A loss term whose mean is a copy of `mean` [1], labelled with its name.
inline LossTerm scripted_term(Pass& pass, const std::string& name, const Tensor& mean,
                              float weight = 1) {
  const Tensor copied = pass.tape().tensor({1}, DType::f32);
  copy(mean, copied);
  const Var value = pass.tape().output(copied, {});
  pass.tape().label(value, {.name = name});
  return {.name = name, .loss = {.mean = value, .rows = {}, .count = {}}, .weight = weight};
}

/// A model that does as a function says. It carries the state "carried" [B] f32 and has parameters
/// of zeros; without being told otherwise one, "weight" [1].
class ScriptedModel : public Model {
 public:
  using Script = std::function<Objective(Parameters&, Pass&, const Batch&, const State&)>;

  /// The loss is the batch's number, and the gradient of every weight is 1.
  static Objective loss_of_batch(Parameters& parameters, Pass& pass, const Batch& batch,
                                 const State&) {
    if (pass.training()) sum(parameters.on(pass.tape(), 0));
    return {.terms = {scripted_term(pass, "loss", batch["loss"])}};
  }

  explicit ScriptedModel(const Device& device, Script script = loss_of_batch)
      : ScriptedModel(one_parameter(device, 1), std::move(script)) {}
  ScriptedModel(Parameters parameters, Script script)
      : parameters_(std::move(parameters)), script_(std::move(script)) {}

  Parameters& parameters() override { return parameters_; }
  State initial_state(std::int64_t batch) const override {
    State state{{{.name = "carried", .value = Tensor(parameters_.device(), {batch}, DType::f32)}}};
    state.reset();
    return state;
  }
  Objective objective(Pass& pass, const Batch& batch, const State& state) override {
    return script_(parameters_, pass, batch, state);
  }

 private:
  Parameters parameters_;
  Script script_;
};

}  // namespace carousel::test
