#pragma once

#include <span>
#include <string>
#include <vector>

namespace carousel {

/// The first names of a list, and how many more there are.
std::string listing(const std::vector<std::string>& names);

/// FormatError, naming `file`, that lists the expected names which are not there and those which are
/// there unexpected, if there are any.
void expect_same_names(const std::string& file, const std::vector<std::string>& there,
                       const std::vector<std::string>& expected);

}  // namespace carousel
