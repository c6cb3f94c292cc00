#include "models/registry.h"

#include <fmt/format.h>

#include "engine/text/prompt.h"
#include "kernels/common/check.h"
#include "models/hmm/hmm.h"
#include "models/ngram/kneser_ney.h"
#include "models/ngram/ngram_lm.h"
#include "models/recurrent/classifier.h"
#include "models/recurrent/recurrent_lm.h"
#include "models/seq2seq/seq2seq.h"
#include "models/transformer/gpt2_weights.h"
#include "models/transformer/transformer_lm.h"
#include "models/transformer/transformer_seq2seq.h"
#include "models/word_vectors.h"

namespace carousel {
namespace {

void take_sizes(HmmConfig& config, const Vocabularies& vocabularies) {
  const Vocabulary& tokens = vocabularies["token"];
  config.vocabulary = tokens.size();
  config.begin = tokens.begin();
  config.unknown = tokens.unknown();
  config.line_end = line_end_token(tokens);
  if (config.emission != Emission::keyboard) return;
  const TokenKind kind = tokens.rules().kind;
  if (kind != TokenKind::character && kind != TokenKind::byte) {
    throw ConfigError(fmt::format(
        "model.emission is keyboard, and data.tokens is {}, expected char or byte", name(kind)));
  }
  if (tokens.size() > HmmConfig::kMostStates) {
    throw ConfigError(
        fmt::format("model.emission is keyboard, and the vocabulary has {} tokens, "
                    "expected at most {}, of which each is a state",
                    tokens.size(), HmmConfig::kMostStates));
  }
  config.states = tokens.size();
  for (std::int32_t id = 0; id < tokens.size(); ++id) config.texts.push_back(tokens.token(id));
}
void take_sizes(KneserNeyConfig& config, const Vocabularies& vocabularies) {
  config.vocabulary = vocabularies["token"].size();
  config.begin = vocabularies["token"].begin();
}
void take_sizes(NgramLmConfig& config, const Vocabularies& vocabularies) {
  config.vocabulary = vocabularies["token"].size();
  config.output.take(vocabularies["token"]);
}
void take_sizes(RecurrentLmConfig& config, const Vocabularies& vocabularies) {
  config.vocabulary = vocabularies["token"].size();
  config.output.take(vocabularies["token"]);
}
void take_sizes(Seq2SeqConfig& config, const Vocabularies& vocabularies) {
  const Vocabulary &source = vocabularies["source"], &target = vocabularies["token"];
  config.source_vocabulary = source.size();
  config.vocabulary = target.size();
  config.same_vocabulary = source.size() == target.size();
  for (std::int32_t id = 0; config.same_vocabulary && id < target.size(); ++id) {
    config.same_vocabulary = source.token(id) == target.token(id);
  }
  config.output.take(target);
}
void take_sizes(TransformerLmConfig& config, const Vocabularies& vocabularies) {
  config.vocabulary = vocabularies["token"].size();
  config.output.take(vocabularies["token"]);
}
void take_sizes(TransformerSeq2seqConfig& config, const Vocabularies& vocabularies) {
  const Vocabulary &source = vocabularies["source"], &target = vocabularies["token"];
  config.sources = source.size();
  config.vocabulary = target.size();
  config.same_vocabulary = source.fingerprint() == target.fingerprint();
  config.output.take(target);
}
void take_sizes(WordVectorsConfig& config, const Vocabularies& vocabularies) {
  const Vocabulary& tokens = vocabularies["token"];
  for (std::int32_t id = 0; id < tokens.size(); ++id) config.counts.push_back(tokens.count(id));
  for (const std::int32_t id : {tokens.unknown(), tokens.begin(), tokens.end()}) {
    if (id >= 0) config.special.push_back(id);
  }
}
void take_sizes(ClassifierConfig& config, const Vocabularies& vocabularies) {
  config.vocabulary = vocabularies["token"].size();
  config.classes = vocabularies["label"].size();
}

/// The options of a model that is made of a config, whose sizes are the data's.
template <class M, class Config>
class ConfigOf final : public ModelConfig {
 public:
  void describe(OptionSection& section) override { config_.describe(section); }
  std::unique_ptr<Model> make(const Vocabularies& vocabularies, const Device& device, DType compute,
                              const Beginning& beginning) const override {
    Config config = config_;
    take_sizes(config, vocabularies);
    return std::make_unique<M>(config, device, compute, beginning);
  }

 private:
  Config config_;
};

template <class M, class Config>
std::unique_ptr<ModelConfig> make_config() {
  return std::make_unique<ConfigOf<M, Config>>();
}

Metrics language_metrics(const Vocabularies&) {
  Metrics metrics;
  metrics.push_back(std::make_unique<MeanLoss>("nats per token"));
  return metrics;
}

Metrics translation_metrics(const Vocabularies& vocabularies) {
  Metrics metrics = language_metrics(vocabularies);
  metrics.push_back(std::make_unique<TokenAccuracy>());
  return metrics;
}

Metrics class_metrics(const Vocabularies& vocabularies) {
  Metrics metrics;
  metrics.push_back(std::make_unique<Classification>(vocabularies["label"]));
  metrics.push_back(std::make_unique<MeanLoss>("nats per example"));
  return metrics;
}

Metrics word_metrics(const Vocabularies&) {
  Metrics metrics;
  metrics.push_back(std::make_unique<MeanLoss>("nats per prediction", MeanLoss::Weight::loss));
  return metrics;
}

constexpr const char* kTokens[] = {"token"};
constexpr const char* kLabelled[] = {"token", "label"};
constexpr const char* kPairs[] = {"source", "token"};

constexpr ModelEntry kModels[] = {
    {.kind = "cbow",
     .description = "vectors of words, each predicted from the mean of those around it",
     .config = make_config<Cbow, CbowConfig>,
     .columns = kTokens,
     .sampler = language_batches,
     .metrics = word_metrics,
     .embeds = true},
    {.kind = "classifier",
     .description = "one label for a whole sequence, by stacked recurrent layers",
     .config = make_config<Classifier, ClassifierConfig>,
     .columns = kLabelled,
     .sampler = example_batches,
     .metrics = class_metrics,
     .predicts = true,
     .embeds = true},
    {.kind = "hmm",
     .description = "hidden Markov model",
     .config = make_config<Hmm, HmmConfig>,
     .columns = kTokens,
     .sampler = language_batches,
     .metrics = language_metrics,
     .decodes = true,
     .tracks = true,
     .scores = true,
     .fits = true},
    {.kind = "kneser_ney",
     .description = "n-gram language model with interpolated Kneser-Ney smoothing",
     .config = make_config<KneserNey, KneserNeyConfig>,
     .columns = kTokens,
     .sampler = language_batches,
     .metrics = language_metrics,
     .decodes = true,
     .scores = true,
     .fits = true},
    {.kind = "ngram_lm",
     .description = "language model of embedded n-grams and a hidden layer",
     .config = make_config<NgramLm, NgramLmConfig>,
     .columns = kTokens,
     .sampler = language_batches,
     .metrics = language_metrics,
     .decodes = true,
     .embeds = true,
     .scores = true},
    {.kind = "recurrent_lm",
     .description = "language model of stacked recurrent layers",
     .config = make_config<RecurrentLm, RecurrentLmConfig>,
     .columns = kTokens,
     .sampler = language_batches,
     .metrics = language_metrics,
     .decodes = true,
     .embeds = true,
     .scores = true,
     .formerly = "lstm_lm"},
    {.kind = "seq2seq",
     .description = "a text for each that it reads, by recurrent layers and attention",
     .config = make_config<Seq2Seq, Seq2SeqConfig>,
     .columns = kPairs,
     .sampler = pair_batches,
     .metrics = translation_metrics,
     .translates = true},
    {.kind = "skipgram",
     .description = "vectors of words, each of which predicts those around it",
     .config = make_config<Skipgram, SkipgramConfig>,
     .columns = kTokens,
     .sampler = language_batches,
     .metrics = word_metrics,
     .embeds = true},
    {.kind = "transformer_lm",
     .description = "language model of the transformer's decoder",
     .config = make_config<TransformerLm, TransformerLmConfig>,
     .columns = kTokens,
     .sampler = language_batches,
     .metrics = language_metrics,
     .decodes = true,
     .embeds = true,
     .scores = true,
     .read_weights = read_gpt2_weights},
    {.kind = "transformer_seq2seq",
     .description = "translation by the transformer's encoder and decoder",
     .config = make_config<TransformerSeq2seq, TransformerSeq2seqConfig>,
     .columns = kPairs,
     .sampler = pair_batches,
     .metrics = translation_metrics,
     .translates = true},
};

}  // namespace

std::span<const ModelEntry> model_registry() { return kModels; }

}  // namespace carousel
