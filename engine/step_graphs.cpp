#include "engine/step_graphs.h"

#include <utility>

#include "kernels/common/check.h"

namespace carousel {

StepGraphs::StepGraphs(const Device& device, bool wanted, Tell refused)
    : device_(device), capturing_(wanted && !is_cpu(device)), refused_(std::move(refused)) {}

bool StepGraphs::capture(Entry& entry, const Step& queue) {
  try {
    entry.graph.emplace(device_, [&] { entry.loss = queue(); });
    ++captured_;
    return true;
  } catch (const CudaError& refusal) {
    capturing_ = false;
    refused_(refusal.what());
    return false;
  }
}

Loss StepGraphs::run(const Key& key, const Step& queue) {
  if (!capturing_) return queue();
  const auto [found, is_new] = seen_.try_emplace(key);
  Entry& entry = found->second;
  if (is_new || (!entry.graph && !capture(entry, queue))) return queue();
  entry.graph->launch();
  ++launched_;
  return entry.loss;
}

}  // namespace carousel
