#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "kernels/common/check.h"
#include "models/registry.h"
#include "tools/commands.h"

namespace carousel {
namespace {

std::vector<std::string> abilities(const ModelEntry& entry) {
  std::vector<std::string> all{"train", "eval", "compare"};
  if (entry.decodes) all.emplace_back("generate");
  if (entry.scores) all.emplace_back("score");
  if (entry.predicts) all.emplace_back("predict");
  return all;
}

/// The kinds of data that have all columns which the model reads.
std::vector<std::string> data_for(const ModelEntry& entry) {
  std::vector<std::string> kinds;
  for (const DataKind& kind : data_kinds()) {
    const bool has_all = std::all_of(entry.columns.begin(), entry.columns.end(), [&](auto wanted) {
      return std::any_of(kind.columns.begin(), kind.columns.end(),
                         [&](std::string_view column) { return column == wanted; });
    });
    if (has_all) kinds.emplace_back(kind.kind);
  }
  return kinds;
}

/// The options of a kind of model or of data.
template <class Kind>
std::string own_options(const Kind& kind, const char* section) {
  const auto config = kind.config();
  Options options;
  config->describe(options.section(section, kind.description));
  return options.help();
}

}  // namespace

void expect_ability(bool able, const char* command, const ModelEntry& entry) {
  if (able) return;
  throw ConfigError(fmt::format("{}: not for model.kind = {}, expected one of: {}", command,
                                entry.kind, fmt::join(abilities(entry), ", ")));
}

int models_command(const CommonArguments& common) {
  if (common.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const ModelEntry& entry : model_registry()) {
      list.push_back({{"kind", entry.kind},
                      {"description", entry.description},
                      {"commands", abilities(entry)},
                      {"data", data_for(entry)}});
    }
    fmt::print("{}\n", list.dump());
    return 0;
  }
  for (const ModelEntry& entry : model_registry()) {
    fmt::print("model.kind = \"{}\"; commands: {}; data.kind: {}\n{}\n", entry.kind,
               fmt::join(abilities(entry), ", "), fmt::join(data_for(entry), ", "),
               own_options(entry, "model"));
  }
  for (const DataKind& kind : data_kinds()) {
    fmt::print("data.kind = \"{}\"\n{}\n", kind.kind, own_options(kind, "data"));
  }
  fmt::print("with every kind\n{}", RunConfig::common_help());
  return 0;
}

}  // namespace carousel
