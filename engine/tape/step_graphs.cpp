#include "engine/tape/step_graphs.h"

#include <algorithm>
#include <utility>

#include "kernels/common/check.h"

namespace carousel {

StepGraphs::StepGraphs(const Device& device, bool wanted, Tell refused)
    : device_(device), capturing_(wanted && !is_cpu(device)), refused_(std::move(refused)) {}

bool StepGraphs::capture(Entry& entry, const Step& queue) {
  try {
    entry.graph.emplace(device_, [&] { entry.result = queue(); });
    ++captured_;
    return true;
  } catch (const CudaError& refusal) {
    capturing_ = false;
    entries_.clear();
    refused_(refusal.what());
    return false;
  }
}

/// Waits for the device if the entry has a graph: it may still run.
void StepGraphs::forget_least_recently_used() {
  entries_.erase(std::ranges::min_element(entries_, {},
                                          [](const auto& entry) { return entry.second.last_use; }));
}

StepGraphs::Result StepGraphs::run(const Key& key, const Step& queue) {
  if (!capturing_) return queue();
  const auto found = entries_.find(key);
  if (found == entries_.end()) {
    if (entries_.size() == kMostKeys) forget_least_recently_used();
    entries_[key].last_use = ++uses_;
    return queue();
  }
  Entry& entry = found->second;
  entry.last_use = ++uses_;
  if (!entry.graph && !capture(entry, queue)) return queue();
  entry.graph->launch();
  ++launched_;
  return entry.result;
}

}  // namespace carousel
