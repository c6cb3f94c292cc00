#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace carousel {

/// The word of a command line that nothing takes, and what it may mean; else what CLI11 says.
std::string fault_of(const CLI::App& app, const CLI::ParseError& error);

}  // namespace carousel
