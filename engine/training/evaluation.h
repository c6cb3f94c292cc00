#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/batches/batches.h"
#include "engine/model/metric.h"

namespace carousel {

/// Makes the metrics of one evaluation.
using MakeMetrics = std::function<Metrics()>;

/// The result of an evaluation.
struct Evaluation {
  std::vector<Score> scores{};  ///< the first one decides which of two models is better
  bool higher_is_better = false;
  std::int64_t counted = 0;  ///< targets or labels
  std::optional<ConfusionMatrix> confusion{};

  const Score* find(std::string_view name) const;  ///< null if there is no such score
  /// The deciding score, with its sign changed if higher is better: a lower cost is better.
  double cost() const { return higher_is_better ? -scores.front().value : scores.front().value; }
};

/// What is done with a batch, its forward pass and the state before it.
using TakeBatch = std::function<void(Pass&, const Batch&, const State&)>;

/// Passes forward, without gradients, over one epoch of `data`: `take` is called with each batch.
/// States begin anew where a batch says so. Values live in `arena`, which is reset after each.
void forward_epoch(Model& model, BatchSource& data, Arena& arena, const TakeBatch& take,
                   const Pass::Options& options = {});

/// Computes the metrics over one epoch of `data`: forward_epoch(). Waits for the device at the end. Error if the epoch has no
/// target and no example, because a mean over nothing is no number.
Evaluation evaluate(Model& model, BatchSource& data, Arena& arena, const MakeMetrics& metrics);

}  // namespace carousel
