#pragma once

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
/// gives the same bits. A step is captured when it is seen for the second time: the first has
/// brought its memory to the arena and chosen its library algorithms, so that the second allocates
/// nothing.
class StepGraphs {
 public:
  /// Every extent and address that a step has and another may not: what a graph repeats as it was.
  using Key = std::vector<std::uintptr_t>;
  /// Queues a step; the mean loss it gives lies at addresses that follow from the key.
  using Step = std::function<Tensor()>;
  using Tell = std::function<void(const std::string& why)>;
  /// Keys that may be seen. Data has few shapes: lines of up to 10⁶ tokens come in some 50 lengths
  /// (engine/data/batches.h). More means that something in the key is new in every step, and no
  /// graph would ever be used again, while each holds memory.
  static constexpr std::size_t kMostKeys = 64;

  /// On the CPU, and if not `wanted`, nothing is captured. `refused` hears, once, why a step could
  /// not be captured, or that there were too many keys; every step is then run as it is queued from
  /// there on, and no graph is kept.
  StepGraphs(const Device& device, bool wanted, Tell refused);

  Tensor run(const Key& key, const Step& queue);

  std::int64_t captured() const { return captured_; }  ///< graphs made
  std::int64_t launched() const { return launched_; }  ///< steps that ran as one

 private:
  struct Entry {
    std::optional<Graph> graph;
    Tensor mean_loss;
  };
  bool capture(Entry& entry, const Step& queue);
  void refuse(const std::string& why);

  Device device_;
  bool capturing_;
  Tell refused_;
  std::map<Key, Entry> seen_;
  std::int64_t captured_ = 0, launched_ = 0;
};

}  // namespace carousel
