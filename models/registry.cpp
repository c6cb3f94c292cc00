#include "models/registry.h"

#include <limits>

#include "models/lstm_lm.h"

namespace carousel {
namespace {

class LstmLmOptions final : public ModelConfig {
 public:
  void describe(OptionSection& section) override {
    constexpr std::int64_t kWidest = 1 << 20;
    section.add("embed", config_.embed, "width of the token embedding", {1, kWidest});
    section.add("hidden", config_.hidden, "units per LSTM layer", {1, kWidest});
    section.add("layers", config_.layers, "LSTM layers", {1, 1000});
    section.add("dropout", config_.dropout, "probability, on connections that are not recurrent",
                {.least = 0, .most = 1, .below_most = true});
    section.add("tie_weights", config_.tie_weights, "use the embedding as output matrix");
    section.add("init", config_.init, "how matrices begin", {"uniform", "xavier", "orthogonal"});
    section.add("init_range", config_.init_range, "of uniform; 0: 1 over the root of hidden",
                {.least = 0});
    section.add("forget_bias", config_.forget_bias, "added to the forget gates' bias at the start");
    section.add("label_smoothing", config_.label_smoothing, "share of the target spread evenly",
                {.least = 0, .most = 1, .below_most = true});
  }

  std::unique_ptr<Model> make(std::int64_t vocabulary, const Device& device, DType compute,
                              std::uint64_t seed) const override {
    LstmLmConfig config = config_;
    config.vocabulary = vocabulary;
    return std::make_unique<LstmLm>(config, device, compute, seed);
  }

 private:
  LstmLmConfig config_;
};

template <class Config>
std::unique_ptr<ModelConfig> make_config() {
  return std::make_unique<Config>();
}

constexpr ModelEntry kModels[] = {
    {"lstm_lm", "language model of stacked LSTMs (Zaremba et al. 2014)",
     make_config<LstmLmOptions>},
};

}  // namespace

std::span<const ModelEntry> model_registry() { return kModels; }

}  // namespace carousel
