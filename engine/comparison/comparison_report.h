#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine/comparison/comparison.h"

namespace carousel {

/// How much of side b's training ran as graphs.
struct GraphUse {
  std::int64_t graphs = 0;         ///< captured
  std::int64_t steps = 0;          ///< that were launches of one
  std::set<std::string> unseen{};  ///< tensors that a graph does not leave to compare
};

/// The contents of a report.
struct ComparisonReport {
  std::string a, b;  ///< the sides' names, "cpu f32"
  std::int64_t steps = 0;
  const Comparison& comparison;
  std::optional<Drift> drift{};
  std::optional<GraphUse> graph{};
};

/// As text: the verdict, the first difference, the drift.
std::string report_text(const ComparisonReport& report);

/// A row for each tensor: "ok" or "FAIL", its name, the largest error, the same relative and as a
/// share of the tolerance, and where. A row for its first difference follows a tensor that fails.
std::vector<std::vector<std::string>> report_rows(const ComparisonReport& report);

/// The same as one JSON object. NaN and infinities are the strings "nan", "inf" and "-inf".
std::string report_json(const ComparisonReport& report);

}  // namespace carousel
