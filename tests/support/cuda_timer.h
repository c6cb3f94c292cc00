#pragma once

#include <functional>

#include "kernels/common/device.h"

struct CUevent_st;  // cudaEvent_t is a pointer to it

namespace carousel::test {

/// Times what is queued on a CUDA device by two events around it.
class CudaTimer {
 public:
  explicit CudaTimer(const Cuda& device);
  ~CudaTimer();
  CudaTimer(const CudaTimer&) = delete;
  CudaTimer& operator=(const CudaTimer&) = delete;

  /// Milliseconds from an idle device until all that `work` queues has run: the time the host takes
  /// to queue it counts where the device waits for it.
  double milliseconds(const std::function<void()>& work) const;

 private:
  Cuda device_;
  CUevent_st *begin_ = nullptr, *end_ = nullptr;
};

/// Forgets the runtime's last error, which a library would take for its own. (Not one after which
/// the device is lost: everything then fails, Cuda::synchronize() too.)
void forget_cuda_error();

}  // namespace carousel::test
