#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/training/trainer.h"
#include "tools/commands.h"
#include "tools/explain.h"
#include "tools/session.h"
#include "tools/texts.h"

namespace carousel {

int eval_command(const EvalArguments& arguments, const CommonArguments& common) {
  TrainedModel trained(arguments.run, common);
  const ScratchFolder scratch;
  const Corpus corpus =
      trained.config().data->evaluation(arguments.data, trained.vocabularies(), scratch.path());
  const TokenStore& tokens = *corpus.validation["token"].store;
  const auto batches = validation_batches(trained.config(), corpus, trained.device());
  Arena arena(trained.device());
  std::optional<Explanation> explanation;
  if (common.explain) explanation.emplace(trained.device(), trained.config().machine);
  const Evaluation result = evaluate(trained.model(), *batches, arena);

  if (explanation) {
    const std::size_t weights = trained.model().parameters().flat_weights().bytes();
    fmt::print(stderr, "{}\n",
               explanation->text(false, {{"weights", weights},
                                         {"a batch's values and scratch", arena.reserved()}}));
  }

  const std::int64_t characters = tokens.characters();
  const double bits = result.loss / std::log(2.0);
  const double per_character =
      result.loss * static_cast<double>(result.tokens) / static_cast<double>(characters);
  if (common.json) {
    fmt::print("{}\n", nlohmann::json{{"step", trained.step()},
                                      {"tokens", result.tokens},
                                      {"unknown_tokens", tokens.unknown()},
                                      {"characters", characters},
                                      {"nats_per_token", result.loss},
                                      {"bits_per_token", bits},
                                      {"perplexity", std::exp(result.loss)},
                                      {"nats_per_character", per_character},
                                      {"bits_per_character", per_character / std::log(2.0)}}
                           .dump());
    return 0;
  }
  fmt::print("{} tokens: {:.4f} nats, {:.4f} bits, perplexity {:.3f} per token\n", result.tokens,
             result.loss, bits, std::exp(result.loss));
  fmt::print("{} characters: {:.4f} nats, {:.4f} bits per character\n", characters, per_character,
             per_character / std::log(2.0));
  if (tokens.unknown() > 0) {
    fmt::print(stderr, "eval: {} tokens are unknown to the model and count as <unk>\n",
               tokens.unknown());
  }
  return 0;
}

}  // namespace carousel
