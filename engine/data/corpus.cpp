#include "engine/data/corpus.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "kernels/common/check.h"

namespace carousel {

const TokenRange* Split::find(std::string_view name) const {
  const auto found = std::find_if(columns.begin(), columns.end(),
                                  [name](const Column& column) { return column.name == name; });
  return found == columns.end() ? nullptr : &found->ids;
}

const TokenRange& Split::operator[](std::string_view name) const {
  if (const TokenRange* const ids = find(name)) return *ids;
  std::vector<std::string> names;
  for (const Column& column : columns) names.push_back(column.name);
  throw ConfigError(
      fmt::format("the data has no column '{}'; it has {}", name, fmt::join(names, ", ")));
}

}  // namespace carousel
