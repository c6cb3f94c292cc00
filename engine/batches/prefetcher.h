#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/batches/batch_plan.h"

namespace carousel {

/// A thread that fills a ring of host batches ahead of who takes them. It does nothing else: it
/// touches no device, so that copies and their order stay with the caller.
class Prefetcher {
 public:
  /// `plan` is the thread's alone while it runs. `slots`: at least two.
  Prefetcher(BatchPlan& plan, std::vector<HostBatch> slots);
  ~Prefetcher() { stop(); }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  /// The batch at `position`, when it is filled. Batches that follow one another are filled ahead;
  /// any other position starts anew. Throws what the plan threw at this batch. The batch stays as
  /// it is until give_back(), which is for the oldest one taken.
  const HostBatch& take(const DataPosition& position);
  void give_back();
  /// Ends the thread. All that was taken counts as given back.
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
  DataPosition next_;  ///< what take() expects to be asked for
  std::mutex mutex_;   ///< guards what follows
  std::condition_variable changed_;
  std::int64_t filled_ = 0, taken_ = 0, returned_ = 0;  ///< batches since start()
  std::exception_ptr error_;  ///< why the batch after the filled ones will never come
  bool stop_ = false;
};

}  // namespace carousel
