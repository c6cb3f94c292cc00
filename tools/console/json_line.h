#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace carousel {

/// A value as one line, with its newline. JSON is UTF-8: bytes that are not become U+FFFD.
std::string json_line(const nlohmann::ordered_json& value);

}  // namespace carousel
