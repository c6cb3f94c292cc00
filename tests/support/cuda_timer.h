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

  /// Milliseconds from an idle device until all that `work` queues has run. The host's time counts
  /// where the device waits for the host.
  double milliseconds(const std::function<void()>& work) const;

 private:
  Cuda device_;
  CUevent_st *begin_ = nullptr, *end_ = nullptr;
};

/// Clears the runtime's last error, which a library would report as its own. (An error that loses
/// the device stays: every call then fails, Cuda::synchronize() too.)
void forget_cuda_error();

}  // namespace carousel::test
