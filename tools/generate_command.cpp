#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "engine/model/generator.h"
#include "engine/run/trained_model.h"
#include "kernels/common/check.h"
#include "models/registry.h"
#include "tools/commands.h"
#include "tools/explain.h"
#include "tools/streams.h"

namespace carousel {
namespace {

void check(const GenerateArguments& a) {
  if (a.tokens < 0) throw ConfigError(fmt::format("--tokens is {}, expected 0 or more", a.tokens));
  if (!(a.temperature > 0)) {
    throw ConfigError(fmt::format(
        "--temperature is {}, expected more than 0 (--greedy takes the likeliest)", a.temperature));
  }
  if (a.top_k < 0) throw ConfigError(fmt::format("--top-k is {}, expected 0 or more", a.top_k));
  if (!(a.top_p > 0 && a.top_p <= 1)) {
    throw ConfigError(fmt::format("--top-p is {}, expected more than 0 and at most 1", a.top_p));
  }
}

}  // namespace

int generate_command(const GenerateArguments& arguments, const CommonArguments& common) {
  check(arguments);
  TrainedModel trained(arguments.run, model_registry(), common, arguments.checkpoint);
  expect_ability(trained.config().entry->decodes, "generate", *trained.config().entry);
  const Vocabulary& vocabulary = trained.vocabularies()["token"];

  const Encoded prompt = vocabulary.encode(arguments.prompt, "--prompt");
  if (!common.json) tell_checkpoint("generate", trained);
  if (prompt.unknown > 0) {
    talk(fmt::format(
        "generate: {} of the prompt's {} tokens are unknown to the model: it reads <unk> there\n",
        prompt.unknown, prompt.ids.size()));
  }
  Generator generator(trained.model(), {.temperature = arguments.temperature,
                                        .top_k = arguments.top_k,
                                        .top_p = arguments.top_p,
                                        .greedy = arguments.greedy,
                                        .seed = arguments.seed,
                                        .suppressed_token = vocabulary.unknown()});
  TextDecoder decoder(vocabulary);
  std::optional<Explanation> explanation;
  if (common.explain) explanation.emplace(trained.device(), trained.config().machine);
  const auto explain = [&] {  // the first token tells it all
    if (!explanation) return;
    const std::size_t weights = trained.model().parameters().bytes().weights;
    talk(explanation->text(false, {{"weights", weights}}) + "\n");
    explanation.reset();
  };
  std::string text = arguments.prompt;
  if (!common.json) write_output(arguments.prompt);
  std::vector<std::int32_t> read;
  if (prompt.ids.empty() || vocabulary.begin() >= 0) read.push_back(first_token(vocabulary));
  for (const std::int32_t id : prompt.ids) {
    read.push_back(id);
    decoder.next(id);  // so that it knows where in a line the text goes on
  }
  generator.begin(read);
  for (std::int64_t i = 0; i < arguments.tokens; ++i) {
    const std::int32_t id = generator.next().front();
    explain();
    const std::string piece = decoder.next(id);
    if (common.json) {
      text += piece;
    } else {
      write_output(piece);
    }
    if (vocabulary.begin() >= 0 && id == vocabulary.end()) break;  // the sentence is over
  }
  text += decoder.finish();
  if (common.json) {
    write_output(nlohmann::json{{"checkpoint", trained.checkpoint()},
                                {"step", trained.step()},
                                {"prompt", arguments.prompt},
                                {"text", text},
                                {"seed", arguments.seed}}
                     .dump() +
                 "\n");
  } else {
    write_output("\n");
  }
  return 0;
}

}  // namespace carousel
