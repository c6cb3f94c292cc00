#include "tools/predict_options.h"

#include <fmt/format.h>

namespace carousel {

std::string wrong_seed(const std::string& seed) {
  // CLI11 reads -1 as the largest number there is.
  return seed.starts_with('-') ? fmt::format("is {}, expected 0 or more", seed) : "";
}

void add_search(CLI::App& command, SearchArguments& arguments, const SearchHelp& help) {
  command.add_option("--beam", arguments.beam, help.beam);
  command.add_option("--nbest", arguments.best, help.best);
  command.add_option("--length-penalty", arguments.length_penalty,
                     "alpha of Wu et al. 2016: above 0, long texts are preferred; default: 0.6");
  command
      .add_option("--suppress", arguments.suppress,
                  "a token that is never written, besides <unk>; may be repeated")
      ->type_name("TOKEN")
      ->take_all();
}

void add_prediction(CLI::App& command, PredictArguments& arguments) {
  command.add_option("--what", arguments.what,
                     "of hidden states: path, the likeliest sequence (default); filter or smooth, "
                     "each state given the tokens up to it or the whole line");
  TranslationArguments& a = arguments.translation;
  add_search(command, a,
             {"of translations: hypotheses that are written on side by side; 1: greedy; "
              "default: 4, or as many as --nbest",
              "so many translations of each line: line number<TAB>score<TAB>translation"});
  command.add_option("--coverage-penalty", a.coverage_penalty,
                     "beta of Wu et al. 2016: above 0, translations that attend to all of the line "
                     "are preferred; default: 0");
  command.add_option("--temperature", a.temperature,
                     "of translations: tokens are drawn; below 1: safer; above: bolder");
  command.add_option("--top-k", a.top_k, "drawn among the k likeliest; 0: all");
  command.add_option("--top-p", a.top_p, "drawn among the likeliest that make up p");
  command
      .add_option("--seed", a.seed,
                  "the same seed draws the same translations of the same lines; default: 1")
      ->check(wrong_seed);
  command.add_option("--tokens", a.tokens,
                     "of a translation, at most; default: twice those of the line and 10");
}

}  // namespace carousel
