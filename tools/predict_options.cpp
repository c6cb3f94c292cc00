#include "tools/predict_options.h"

namespace carousel {

void add_prediction(CLI::App& command, PredictArguments& arguments) {
  command.add_option("--what", arguments.what,
                     "of hidden states: path, the likeliest sequence (default); filter or smooth, "
                     "each state given the tokens up to it or the whole line");
  TranslationArguments& a = arguments.translation;
  command.add_option("--beam", a.beam,
                     "of translations: hypotheses that are written on side by side; 1: greedy; "
                     "default: 4, or as many as --nbest");
  command.add_option("--nbest", a.best,
                     "so many translations of each line: line number<TAB>score<TAB>translation");
  command.add_option("--length-penalty", a.length_penalty,
                     "alpha of Wu et al. 2016: above 0, long translations are preferred; "
                     "default: 0.6");
  command.add_option("--coverage-penalty", a.coverage_penalty,
                     "beta of Wu et al. 2016: above 0, translations that attend to all of the line "
                     "are preferred; default: 0");
  command.add_option("--tokens", a.tokens,
                     "of a translation, at most; default: twice those of the line and 10");
  command
      .add_option("--suppress", a.suppress,
                  "a token that is never written, besides <unk>; may be repeated")
      ->type_name("TOKEN")
      ->take_all();
}

}  // namespace carousel
