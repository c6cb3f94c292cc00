#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "tools/commands/commands.h"

namespace carousel {

/// What is wrong with a seed as it is typed; empty if nothing is.
std::string wrong_seed(const std::string& seed);

/// What a command says of --beam and --nbest.
struct SearchHelp {
  const char *beam, *best;
};
/// How the likeliest texts are searched for.
void add_search(CLI::App& command, SearchArguments& arguments, const SearchHelp& help);

/// What `predict` takes besides what commands share.
void add_prediction(CLI::App& command, PredictArguments& arguments);

}  // namespace carousel
