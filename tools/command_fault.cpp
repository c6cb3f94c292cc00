#include "tools/command_fault.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "engine/config/nearest.h"

namespace carousel {

std::string fault_of(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> unknown = app.remaining(/*recurse=*/true);
  if (unknown.empty()) return error.what();
  const CLI::App* chosen = &app;
  std::string name = app.get_name();
  while (!chosen->get_subcommands().empty()) {
    chosen = chosen->get_subcommands().front();
    name += " " + chosen->get_name();
  }
  const std::vector<const CLI::App*> commands = chosen->get_subcommands({});
  const auto option = std::find_if(unknown.begin(), unknown.end(),
                                   [](const std::string& word) { return word.starts_with('-'); });
  const bool is_command = !commands.empty() && option != unknown.begin();
  if (!is_command && option == unknown.end()) {
    return fmt::format("{}: nothing takes '{}'", name, unknown.front());
  }
  const std::string word = is_command ? unknown.front() : option->substr(0, option->find('='));
  std::vector<std::string> known;
  if (is_command) {
    for (const CLI::App* one : commands) known.push_back(one->get_name());
  } else {
    for (const CLI::Option* one : chosen->get_options()) {
      for (const std::string& own : one->get_lnames()) known.push_back("--" + own);
    }
  }
  const std::string meant = nearest(word, known);
  return fmt::format("{} has no {} '{}'{}", name, is_command ? "command" : "option", word,
                     meant.empty() ? "" : fmt::format(", did you mean '{}'?", meant));
}

}  // namespace carousel
