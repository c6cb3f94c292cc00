#include "tools/predict_options.h"

namespace carousel {

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
  command.add_option("--tokens", a.tokens,
                     "of a translation, at most; default: twice those of the line and 10");
}

}  // namespace carousel
