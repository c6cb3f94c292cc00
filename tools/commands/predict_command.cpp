#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/run/trained_model.h"
#include "models/registry.h"
#include "tools/commands/commands.h"
#include "tools/console/json_line.h"
#include "tools/console/line_input.h"
#include "tools/console/streams.h"

namespace carousel {

int predict_command(const PredictArguments& arguments, const CommonArguments& common) {
  TrainedModel trained(arguments.run, model_registry(), common, arguments.checkpoint);
  expect_ability(trained.config().entry->predicts, "predict", *trained.config().entry);
  const Corpus corpus =
      trained.config().data->inputs(text_of_input(arguments.data), trained.vocabularies(), {});
  tell_checkpoint("predict", trained);
  tell_unknown("predict", corpus.validation["token"].store->unknown());
  const Vocabulary& labels = trained.vocabularies()["label"];
  for (const std::vector<double>& probability : trained.predict(corpus)) {
    const auto likeliest = std::max_element(probability.begin(), probability.end());
    const auto label = static_cast<std::int32_t>(likeliest - probability.begin());
    if (!common.json) {
      write_output(fmt::format("{}\t{:.4f}\n", labels.token(label), *likeliest));
      continue;
    }
    nlohmann::ordered_json all = nlohmann::ordered_json::object();
    for (std::int32_t id = 0; id < labels.size(); ++id) {
      all[labels.token(id)] = probability[static_cast<std::size_t>(id)];
    }
    write_output(json_line(
        {{"label", labels.token(label)}, {"probability", *likeliest}, {"probabilities", all}}));
  }
  return 0;
}

}  // namespace carousel
