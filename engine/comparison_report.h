#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/comparison.h"

namespace carousel {

/// A comparison as it is told.
struct ComparisonReport {
  std::string a, b;  ///< the sides' names, "cpu f32"
  std::int64_t steps = 0;
  const Comparison& comparison;
  std::optional<Drift> drift{};
};

/// For people: the verdict, the first wrong thing, the drift, and then a table of all tensors.
std::string report_text(const ComparisonReport& report);

/// The same as one JSON object. Numbers that are none are the strings "nan", "inf" and "-inf".
std::string report_json(const ComparisonReport& report);

}  // namespace carousel
