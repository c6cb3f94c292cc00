#pragma once

#include <string>
#include <vector>

#include "engine/model/text_search.h"
#include "engine/text/vocabulary.h"
#include "tools/commands/commands.h"

namespace carousel {

/// What the command line says of a beam. ConfigError for a token that the vocabulary lacks.
BeamOptions beam_options(const SearchArguments& arguments, const Vocabulary& vocabulary);

/// What was found behind a prompt.
struct FoundTexts {
  const std::string& prompt;
  const std::vector<FoundText>& texts;
};

/// Prints the likeliest texts: `generate --beam`.
void print_found(const GenerateArguments& arguments, const TrainedModel& trained,
                 const FoundTexts& found, bool json);

}  // namespace carousel
