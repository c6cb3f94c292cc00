#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/batches/batch_plan.h"

namespace carousel {

/// A thread that fills a ring of host batches before they are needed. It uses no device: the caller
/// copies the batches, in the caller's order.
class Prefetcher {
 public:
  /// While the thread runs, nothing else may use `plan`. `slots`: at least two.
  Prefetcher(BatchPlan& plan, std::vector<HostBatch> slots);
  ~Prefetcher() { stop(); }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  /// Waits for the batch at `position` and returns it. Consecutive batches are filled ahead; any
  /// other position restarts the thread there. Rethrows the plan's exception for this batch. The
  /// batch is not changed until give_back(), which returns the oldest batch taken.
  const HostBatch& take(const DataPosition& position);
  void give_back();
  /// Ends the thread. All batches taken count as given back.
  void stop();
  std::int64_t slots() const { return static_cast<std::int64_t>(slots_.size()); }

 private:
  void start(const DataPosition& position);
  void fill_ahead(DataPosition position);
  HostBatch& slot(std::int64_t number) {
    return slots_[static_cast<std::size_t>(number % slots())];
  }

  BatchPlan& plan_;
  std::vector<HostBatch> slots_;
  std::thread thread_;
  DataPosition next_;  ///< the position that take() expects
  std::mutex mutex_;   ///< guards what follows
  std::condition_variable changed_;
  std::int64_t filled_ = 0, taken_ = 0, returned_ = 0;  ///< batches since start()
  std::exception_ptr error_;  ///< the plan's exception at the batch after the filled ones
  bool stop_ = false;
};

}  // namespace carousel
