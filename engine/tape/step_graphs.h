#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/tape/tensor.h"
#include "kernels/common/graph.h"

namespace carousel {

/// Runs a step that is queued again and again: as it is queued, or on CUDA as one graph, which
/// gives the same bits. A step is captured when its key is seen for the second time: the first time
/// has brought its memory to the arena and chosen its library algorithms, so that the second
/// allocates nothing.
///
/// The least recently used key gives way to a new one when there are kMostKeys. If it comes back,
/// it is a new key, and its step is captured again.
class StepGraphs {
 public:
  /// Every extent and address that a step has and another may not: what a graph repeats as it was.
  using Key = std::vector<std::uintptr_t>;
  /// What a step gives. It lies at addresses that follow from the key.
  using Result = Tensor;
  using Step = std::function<Result()>;  ///< queues a step
  using Tell = std::function<void(const std::string& why)>;
  /// Keys that are remembered, with a graph or not yet; each graph holds device memory. Lines of up
  /// to 10⁶ tokens come in some 50 lengths (engine/batches/batches.h).
  static constexpr std::size_t kMostKeys = 64;

  /// On the CPU, and if not `wanted`, nothing is captured. `refused` hears, once, why a step could
  /// not be captured; every step is then run as it is queued from there on, and no graph is kept.
  StepGraphs(const Device& device, bool wanted, Tell refused);

  Result run(const Key& key, const Step& queue);

  std::int64_t captured() const { return captured_; }  ///< graphs made
  std::int64_t launched() const { return launched_; }  ///< steps that ran as one
  std::size_t remembered() const { return entries_.size(); }

 private:
  struct Entry {
    std::optional<Graph> graph;
    Result result;
    std::int64_t last_use = 0;
  };
  bool capture(Entry& entry, const Step& queue);
  void forget_least_recently_used();

  Device device_;
  bool capturing_;
  Tell refused_;
  std::map<Key, Entry> entries_;
  std::int64_t uses_ = 0, captured_ = 0, launched_ = 0;
};

}  // namespace carousel
