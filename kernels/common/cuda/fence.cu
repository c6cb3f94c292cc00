#include "kernels/common/fence.h"

#include <cuda_runtime.h>

#include <cstdio>

#include "kernels/common/cuda/context.cuh"

namespace carousel {

CUevent_st* make_event(const Cuda&) {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  return event;
}

void destroy_event(CUevent_st* event) noexcept {
  const cudaError_t status = cudaEventDestroy(event);
  if (status != cudaSuccess) {
    std::fprintf(stderr, "destroying an event: %s\n", cudaGetErrorString(status));
  }
}

void record_event(const Cuda& device, CUevent_st* event) {
  refuse_in_capture(device, "moving a fence");
  check_cuda(cudaEventRecord(event, device.stream()), "recording an event");
}

void wait_for_event(CUevent_st* event) {
  check_cuda(cudaEventSynchronize(event), "waiting for an event");
}

}  // namespace carousel
