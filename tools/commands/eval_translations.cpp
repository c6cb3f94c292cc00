#include "tools/commands/eval_translations.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/data/example_reader.h"
#include "engine/run/translations.h"
#include "engine/text/translation_scores.h"
#include "tools/console/json_line.h"
#include "tools/console/progress.h"
#include "tools/console/streams.h"

namespace carousel {
namespace {

/// The two sides of lines source<TAB>target, which were read before and are right.
struct Sides {
  std::vector<std::string> sources, targets;

  explicit Sides(const Text& pairs) {
    read_lines(pairs, [&](std::string_view line, const LinePlace&) {
      const std::size_t tab = line.find('\t');
      if (tab == std::string_view::npos) return;
      sources.emplace_back(line.substr(0, tab));
      const std::string_view target = line.substr(tab + 1);
      targets.emplace_back(target.substr(0, target.find('\t')));
    });
  }
};

}  // namespace

void evaluate_translations(const EvalArguments& arguments, const Text& pairs, TrainedModel& trained,
                           const Evaluation& result, bool json) {
  Translations translations(trained);
  const Sides sides(pairs);
  LineEncoder encoder = translations.encoder(pairs.name());
  std::vector<LineIds> lines;
  for (const std::string& source : sides.sources) lines.push_back(encoder.next(source + "\n"));
  BeamOptions options;
  options.beam = arguments.beam.value_or(options.beam);
  options.check();
  std::vector<std::string> hypotheses;
  for (const std::vector<Hypothesis>& found : translations.translate(lines, options)) {
    hypotheses.push_back(found.empty() ? "" : translations.text(found.front()));
  }
  const TranslationScores scores = score_translations(hypotheses, sides.targets);
  const double loss = result.find("loss")->value;
  const double accuracy = result.find("token_accuracy")->value;
  const auto count = static_cast<std::int64_t>(sides.sources.size());
  if (!json) {
    print(fmt::format(
        "{}, {}: {:.4f} nats, perplexity {:.3f} per token, {:.1f} % of them the likeliest\n",
        counted(count, "pair"), counted(result.counted, "token"), loss, std::exp(loss),
        100 * accuracy));
    print(
        fmt::format("translated with a beam of {}: BLEU {:.2f}, chrF {:.2f}, {:.1f} % exactly "
                    "the target\n",
                    options.beam, scores.bleu, scores.chrf, 100 * scores.exact_match));
    return;
  }
  write_output(json_line({{"checkpoint", trained.checkpoint()},
                          {"step", trained.step()},
                          {"pairs", count},
                          {"tokens", result.counted},
                          {"nats_per_token", loss},
                          {"perplexity", std::exp(loss)},
                          {"token_accuracy", accuracy},
                          {"beam", options.beam},
                          {"bleu", scores.bleu},
                          {"precisions", scores.precisions},
                          {"brevity_penalty", scores.brevity_penalty},
                          {"chrf", scores.chrf},
                          {"exact_match", scores.exact_match}}));
}

}  // namespace carousel
