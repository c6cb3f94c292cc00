#pragma once

#include <CLI/CLI.hpp>

#include "tools/commands/commands.h"

namespace carousel {

/// What `predict` takes besides what commands share.
void add_prediction(CLI::App& command, PredictArguments& arguments);

}  // namespace carousel
