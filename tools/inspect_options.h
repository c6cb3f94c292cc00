#pragma once

#include <CLI/CLI.hpp>

#include "tools/commands/commands.h"

namespace carousel {

/// The command `inspect` with a command of its own for each thing that it tells.
CLI::App* add_inspect(CLI::App& app, InspectArguments& arguments, CommonArguments& common);

}  // namespace carousel
