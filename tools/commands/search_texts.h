#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "engine/generation/text_search.h"
#include "engine/text/vocabulary.h"
#include "tools/commands/commands.h"

namespace carousel {

/// What the command line says of a beam. ConfigError for a token that the vocabulary lacks.
BeamOptions beam_options(const SearchArguments& arguments, const Vocabulary& vocabulary);

/// Two options that exclude each other, and whether both are given.
struct Exclusion {
  bool both;
  const char *one, *other, *why;
};
/// ConfigError if both of any are given.
void expect_one_of_each(std::initializer_list<Exclusion> pairs);
/// ConfigError for numbers out of range. `greedy` is the option that takes the likeliest instead.
void expect_sampling(const SamplingConfig& how, const char* greedy);

/// What was found behind a prompt.
struct FoundTexts {
  const std::string& prompt;
  const std::vector<FoundText>& texts;
};

/// Prints the likeliest texts: `generate --beam`.
void print_found(const GenerateArguments& arguments, const TrainedModel& trained,
                 const FoundTexts& found, bool json);

}  // namespace carousel
