#include "tests/support/cuda_timer.h"

#include <cuda_runtime.h>

#include "kernels/common/cuda/context.cuh"

namespace carousel::test {

CudaTimer::CudaTimer(const Cuda& device) : device_(device) {
  check_cuda(cudaEventCreate(&begin_), "making an event");
  check_cuda(cudaEventCreate(&end_), "making an event");
}

CudaTimer::~CudaTimer() {
  static_cast<void>(cudaEventDestroy(begin_));
  static_cast<void>(cudaEventDestroy(end_));
}

double CudaTimer::milliseconds(const std::function<void()>& work) const {
  device_.synchronize();
  check_cuda(cudaEventRecord(begin_, device_.stream()), "recording an event");
  work();
  check_cuda(cudaEventRecord(end_, device_.stream()), "recording an event");
  device_.synchronize();
  float result = 0;
  check_cuda(cudaEventElapsedTime(&result, begin_, end_), "reading events");
  return result;
}

void forget_cuda_error() { static_cast<void>(cudaGetLastError()); }

}  // namespace carousel::test
