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
  if (entry.predicts) all.emplace_back("predict");
  return all;
}

/// The kind of data with the fewest columns that has those which the model reads.
const DataKind& data_for(const ModelEntry& entry) {
  const DataKind* best = nullptr;
  for (const DataKind& kind : data_kinds()) {
    const bool has_all = std::all_of(entry.columns.begin(), entry.columns.end(), [&](auto wanted) {
      return std::any_of(kind.columns.begin(), kind.columns.end(),
                         [&](std::string_view column) { return column == wanted; });
    });
    if (has_all && (best == nullptr || kind.columns.size() < best->columns.size())) best = &kind;
  }
  return *best;
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
                      {"commands", abilities(entry)}});
    }
    fmt::print("{}\n", list.dump());
    return 0;
  }
  for (const ModelEntry& entry : model_registry()) {
    fmt::print("{}: {}\ncommands: {}\n\n{}\n", entry.kind, entry.description,
               fmt::join(abilities(entry), ", "), RunConfig(entry, data_for(entry)).help());
  }
  return 0;
}

}  // namespace carousel
