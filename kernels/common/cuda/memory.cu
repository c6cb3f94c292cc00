#include "kernels/common/memory.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <cstdio>

#include "kernels/common/cuda/context.cuh"

// Device memory is allocated in the stream's order from the driver's pool, which keeps freed blocks
// (CudaContext tells it to): work that is queued next may reuse a block, and nothing waits.

namespace carousel {
namespace {

struct Use {
  std::atomic<std::size_t> current = 0, peak = 0, allocations = 0;
};
Use& use() {
  static Use all;
  return all;
}

/// For destructors, which do not throw.
void report(cudaError_t status, const char* what) {
  if (status != cudaSuccess) std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
}

}  // namespace

void* allocate(const Cuda& device, std::size_t bytes) {
  refuse_in_capture(device, "allocating device memory");
  void* data = nullptr;
  check_cuda(cudaMallocAsync(&data, std::max<std::size_t>(bytes, 1), device.stream()),
             "allocating device memory");
  const std::size_t now = use().current += bytes;
  std::size_t peak = use().peak;
  while (peak < now && !use().peak.compare_exchange_weak(peak, now)) {
  }
  ++use().allocations;
  return data;
}

void release(const Cuda& device, void* data, std::size_t bytes) noexcept {
  use().current -= bytes;
  report(cudaFreeAsync(data, device.stream()), "freeing device memory");
}

void* allocate_pinned(const Cuda&, std::size_t bytes) {
  void* data = nullptr;
  check_cuda(cudaMallocHost(&data, std::max<std::size_t>(bytes, 1)), "allocating pinned memory");
  return data;
}

void release_pinned(const Cuda&, void* data) noexcept {
  report(cudaFreeHost(data), "freeing pinned memory");
}

void copy_to_device(const Cuda& device, void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return;
  refuse_in_capture(device, "copying to the device");
  check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, device.stream()),
             "copying to the device");
}

void copy_to_host(const Cuda& device, void* to, const void* from, std::size_t bytes) {
  if (bytes != 0) {
    check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, device.stream()),
               "copying from the device");
  }
  device.synchronize();
}

#ifdef __CUDACC__
void allow_access(const Cuda&, void*, std::size_t) {}
void forbid_access(const Cuda&, void*, std::size_t) {}
#else
void allow_access(const Cuda& device, void* data, std::size_t bytes) {
  emulation::allow_access(device.stream(), data, bytes);
}
void forbid_access(const Cuda& device, void* data, std::size_t bytes) {
  emulation::forbid_access(device.stream(), data, bytes);
}
#endif

MemoryUse memory_use(const Cuda&) {
  constexpr std::size_t kWorkspace = CudaContext::kWorkspaceBytes;
  return {.current = use().current + kWorkspace,
          .peak = use().peak + kWorkspace,
          .allocations = use().allocations};
}

}  // namespace carousel
