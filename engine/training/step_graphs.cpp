#include "engine/training/step_graphs.h"

#include <fmt/format.h>

#include <utility>

#include "kernels/common/check.h"

namespace carousel {

StepGraphs::StepGraphs(const Device& device, bool wanted, Tell refused)
    : device_(device), capturing_(wanted && !is_cpu(device)), refused_(std::move(refused)) {}

bool StepGraphs::capture(Entry& entry, const Step& queue) {
  try {
    entry.graph.emplace(device_, [&] { entry.mean_loss = queue(); });
    ++captured_;
    return true;
  } catch (const CudaError& refusal) {
    refuse(refusal.what());
    return false;
  }
}

void StepGraphs::refuse(const std::string& why) {
  capturing_ = false;
  seen_.clear();
  refused_(why);
}

Tensor StepGraphs::run(const Key& key, const Step& queue) {
  if (!capturing_) return queue();
  const auto [found, is_new] = seen_.try_emplace(key);
  Entry& entry = found->second;
  if (is_new && seen_.size() > kMostKeys) {
    refuse(fmt::format("steps of more than {} shapes, expected a few that come again", kMostKeys));
    return queue();
  }
  if (is_new || (!entry.graph && !capture(entry, queue))) return queue();
  entry.graph->launch();
  ++launched_;
  return entry.mean_loss;
}

}  // namespace carousel
