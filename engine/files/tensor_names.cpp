#include "engine/files/tensor_names.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "kernels/common/check.h"

namespace carousel {

std::string listing(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 8;
  const std::size_t shown = std::min(names.size(), kShown);
  std::string text = fmt::format(
      "{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (shown < names.size()) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

void expect_same_names(const std::string& file, const std::vector<std::string>& there,
                       const std::vector<std::string>& expected) {
  std::set<std::string> unexpected(there.begin(), there.end());
  std::vector<std::string> missing;
  for (const std::string& name : expected) {
    if (unexpected.erase(name) == 0) missing.push_back(name);
  }
  std::string problem;
  if (!missing.empty()) problem = "missing " + listing(missing);
  if (!unexpected.empty()) {
    problem += (problem.empty() ? "" : "; ") +
               ("unexpected " + listing({unexpected.begin(), unexpected.end()}));
  }
  if (!problem.empty()) throw FormatError(fmt::format("{}: {}", file, problem));
}

}  // namespace carousel
