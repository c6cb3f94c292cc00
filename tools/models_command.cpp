#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "models/registry.h"
#include "tools/commands.h"
#include "tools/run_config.h"

namespace carousel {

int models_command(const CommonArguments& common) {
  if (common.json) {
    nlohmann::json list = nlohmann::json::array();
    for (const ModelEntry& entry : model_registry()) {
      list.push_back({{"kind", entry.kind}, {"description", entry.description}});
    }
    fmt::print("{}\n", list.dump());
    return 0;
  }
  for (const ModelEntry& entry : model_registry()) {
    fmt::print("{}: {}\n\n{}", entry.kind, entry.description,
               RunConfig(std::string(entry.kind)).help());
  }
  return 0;
}

}  // namespace carousel
