#pragma once

#include <memory>

#include "engine/model/registry.h"
#include "tests/support/scripted.h"

namespace carousel::test {

/// A row for the table of models: "scripted", formerly "recited", a ScriptedModel that reads text.
/// Each of its losses is model.loss.
inline ModelEntry scripted_entry() {
  class ScriptedConfig final : public ModelConfig {
   public:
    void describe(OptionSection& section) override { section.add("loss", loss_, "of every batch"); }
    std::unique_ptr<Model> make(const Vocabularies&, const Device& device, DType,
                                const Beginning&) const override {
      const Tensor loss = tensor_of<float>(device, {1}, {static_cast<float>(loss_)});
      return std::make_unique<ScriptedModel>(
          device, [loss](Parameters& parameters, Pass& pass, const Batch&, const State&) {
            if (pass.training()) sum(parameters.on(pass.tape(), 0));
            return Objective{.terms = {scripted_term(pass, "loss", loss)}};
          });
    }

   private:
    double loss_ = 1;
  };
  static constexpr const char* kColumns[] = {"token"};
  return {.kind = "scripted",
          .description = "every loss is a given number",
          .config = [] { return std::unique_ptr<ModelConfig>(new ScriptedConfig); },
          .columns = kColumns,
          .sampler = language_batches,
          .metrics =
              [](const Vocabularies&) {
                Metrics metrics;
                metrics.push_back(std::make_unique<MeanLoss>("nats per token"));
                return metrics;
              },
          .formerly = "recited"};
}

}  // namespace carousel::test
