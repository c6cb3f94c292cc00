#pragma once

#include "kernels/common/device.h"

struct CUevent_st;  // cudaEvent_t is a pointer to it

namespace carousel {

/// A point in a device's queue of work that the host can wait for, such as the end of a copy from
/// pinned memory that is to be filled again. On the CPU, where work is done at once, wait() returns
/// immediately.
class Fence {
 public:
  explicit Fence(const Device& device);
  ~Fence();
  Fence(Fence&& other) noexcept;
  Fence& operator=(Fence&& other) noexcept;

  /// Moves the fence behind everything queued so far. CudaError while a graph is captured.
  void record();
  void wait() const;  ///< returns when that work has run; at once if nothing was recorded

 private:
  Device device_;
  CUevent_st* event_ = nullptr;  ///< null on the CPU
};

}  // namespace carousel
