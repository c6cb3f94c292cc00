#include "engine/model/registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "engine/config/nearest.h"
#include "kernels/common/check.h"

namespace carousel {

const ModelEntry& find_model(std::span<const ModelEntry> models, const std::string& kind) {
  std::vector<std::string> kinds;
  for (const ModelEntry& entry : models) {
    if (kind == entry.kind || (entry.formerly != nullptr && kind == entry.formerly)) return entry;
    kinds.emplace_back(entry.kind);
  }
  const std::string guess = nearest(kind, kinds);
  throw ConfigError(fmt::format("model.kind is '{}', expected one of: {}{}", kind,
                                fmt::join(kinds, ", "),
                                guess.empty() ? "" : "; did you mean '" + guess + "'?"));
}

}  // namespace carousel
