#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "engine/batches/batches.h"
#include "engine/model/metric.h"

namespace carousel {

/// Makes the metrics of one evaluation.
using MakeMetrics = std::function<Metrics()>;

/// What an evaluation found.
struct Evaluation {
  std::vector<Score> scores{};  ///< the first is the one that decides
  bool higher_is_better = false;
  std::int64_t counted = 0;  ///< targets or labels
  std::optional<ConfusionMatrix> confusion{};

  /// The deciding score, turned round if need be: less is better.
  double cost() const { return higher_is_better ? -scores.front().value : scores.front().value; }
};

/// Judges every batch of one epoch of `data`. States begin anew where a batch says so. Values live in
/// `arena`, which is reset. Waits for the device at the end.
Evaluation evaluate(Model& model, BatchSource& data, Arena& arena, const MakeMetrics& metrics);

}  // namespace carousel
