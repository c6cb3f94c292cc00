#pragma once

#include <string>
#include <vector>

namespace carousel {

/// The candidate nearest to a misspelt word, or an empty string if none is near: at most one edit
/// in three letters (one in shorter words), an exchange of neighbours being one edit.
std::string nearest(const std::string& word, const std::vector<std::string>& candidates);

/// What is called here what other programs call so, keys and sections: "learning_rate" for "lr".
std::vector<std::string> names_here(const std::string& elsewhere);

}  // namespace carousel
