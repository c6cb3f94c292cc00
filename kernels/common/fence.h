#pragma once

#include "kernels/common/device.h"

struct CUevent_st;  // cudaEvent_t is a pointer to it

namespace carousel {

/// A point in a device's queue of work that the host can wait for: so that pinned memory is filled
/// anew only when the copy from it is through. On the CPU, where everything happens at once, there
/// is nothing to wait for.
class Fence {
 public:
  explicit Fence(const Device& device);
  ~Fence();
  Fence(Fence&& other) noexcept;
  Fence& operator=(Fence&& other) noexcept;

  /// Moves the fence behind everything queued so far. CudaError while a graph is captured.
  void record();
  void wait() const;  ///< returns when that has run; at once if nothing was recorded

 private:
  Device device_;
  CUevent_st* event_ = nullptr;  ///< null on the CPU
};

}  // namespace carousel
