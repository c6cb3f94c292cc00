#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/tape/parameters.h"

namespace carousel {

/// Groups of parameters, each with the pattern of its members' names (Parameters::set_group()).
using ParameterGroups = std::vector<std::pair<std::string, ParameterGroup>>;

/// The groups that a text describes, as optimizer.groups has it: PATTERN: SETTING, …; and so on,
/// where a setting is learning_rate_factor=NUMBER, weight_decay=NUMBER or frozen:
///
///     *bias*: weight_decay=0; embedding.*: learning_rate_factor=0.1, weight_decay=0.01
///
/// ConfigError for anything else.
ParameterGroups parameter_groups(std::string_view text);

/// Puts the parameters into the groups, one group after the other. ConfigError if one has no member.
void group(Parameters& parameters, const ParameterGroups& groups);

}  // namespace carousel
