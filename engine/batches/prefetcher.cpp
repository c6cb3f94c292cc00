#include "engine/batches/prefetcher.h"

#include <utility>

namespace carousel {

Prefetcher::Prefetcher(BatchPlan& plan, std::vector<HostBatch> slots)
    : plan_(plan), slots_(std::move(slots)) {}

void Prefetcher::start(const DataPosition& position) {
  stop();
  filled_ = taken_ = returned_ = 0;
  error_ = nullptr;
  stop_ = false;
  next_ = position;
  thread_ = std::thread([this, position] { fill_ahead(position); });
}

void Prefetcher::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Prefetcher::fill_ahead(DataPosition position) {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || filled_ - returned_ < slots(); });
    if (stop_) return;
    HostBatch& batch = slot(filled_);
    lock.unlock();  // the other thread uses this slot only after filled_ has counted it
    std::exception_ptr error;
    try {
      plan_.fill(position, batch);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    error_ = error;
    filled_ += error == nullptr ? 1 : 0;
    changed_.notify_all();
    if (error != nullptr) return;
    position = after(position, plan_.batches_in(position.epoch));
  }
}

const HostBatch& Prefetcher::take(const DataPosition& position) {
  if (!thread_.joinable() || !(position == next_)) start(position);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return filled_ > taken_ || error_ != nullptr; });
  if (filled_ == taken_) std::rethrow_exception(error_);
  next_ = after(position, plan_.batches_in(position.epoch));
  return slot(taken_++);
}

void Prefetcher::give_back() {
  {
    const std::lock_guard lock(mutex_);
    ++returned_;
  }
  changed_.notify_all();
}

}  // namespace carousel
