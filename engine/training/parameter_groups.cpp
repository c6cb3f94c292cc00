#include "engine/training/parameter_groups.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <optional>

#include "kernels/common/check.h"

namespace carousel {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

/// The trimmed parts between separators; an empty last one is left out.
std::vector<std::string_view> parts(std::string_view text, char separator) {
  std::vector<std::string_view> result;
  while (!trimmed(text).empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    result.push_back(trimmed(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result;
}

double number(std::string_view text, std::string_view setting) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= 0 &&
      std::isfinite(value)) {
    return value;
  }
  throw ConfigError(
      fmt::format("optimizer.groups: '{}' has no number of at least 0 after the =", setting));
}

void add_setting(ParameterGroup& group, std::string_view setting) {
  const std::size_t equals = setting.find('=');
  const std::string_view key = trimmed(setting.substr(0, equals));
  const bool valued = equals != std::string_view::npos;
  if (key == "frozen" && !valued) {
    group.frozen = true;
  } else if (key == "learning_rate_factor" && valued) {
    group.learning_rate_factor = number(trimmed(setting.substr(equals + 1)), setting);
  } else if (key == "weight_decay" && valued) {
    group.weight_decay = number(trimmed(setting.substr(equals + 1)), setting);
  } else {
    throw ConfigError(
        fmt::format("optimizer.groups: '{}' is no setting, expected learning_rate_factor=NUMBER, "
                    "weight_decay=NUMBER or frozen",
                    setting));
  }
}

}  // namespace

ParameterGroups parameter_groups(std::string_view text) {
  ParameterGroups result;
  for (const std::string_view described : parts(text, ';')) {
    const std::size_t colon = described.find(':');
    const std::string_view pattern = trimmed(described.substr(0, colon));
    const auto settings = colon == std::string_view::npos ? std::vector<std::string_view>{}
                                                          : parts(described.substr(colon + 1), ',');
    if (pattern.empty() || settings.empty()) {
      throw ConfigError(fmt::format(
          "optimizer.groups: '{}' is no group, expected PATTERN: SETTING, SETTING", described));
    }
    ParameterGroup group;
    for (const std::string_view setting : settings) add_setting(group, setting);
    result.emplace_back(pattern, group);
  }
  return result;
}

void group(Parameters& parameters, const ParameterGroups& groups) {
  for (const auto& [pattern, group] : groups) parameters.set_group(pattern, group);
}

}  // namespace carousel
