#pragma once

#include <cuda_runtime.h>

#include "kernels/common/check.h"

struct cublasLtContext;

namespace carousel {

class Cuda;

/// Throws CudaError "<file>:<line>: <what>: <the runtime's text>" unless `status` is success.
void check_cuda(cudaError_t status, const char* what, Where at = Where::here());

/// Throws CudaError "<what> cannot be part of a graph, and one is being captured" during a capture.
/// It is for calls that CUDA would capture with another meaning: memory would belong to the graph,
/// host values would be read at its launch, a fence would move when it runs.
void refuse_in_capture(const Cuda& device, const char* what);

/// Everything that a Cuda device owns. Copies of a Cuda value share it.
class CudaContext {
 public:
  explicit CudaContext(int ordinal);
  ~CudaContext();
  CudaContext(const CudaContext&) = delete;
  CudaContext& operator=(const CudaContext&) = delete;

  int ordinal = 0;
  cudaStream_t stream = nullptr;
  cudaDeviceProp properties{};
  bool synchronous = false;           ///< CAROUSEL_SYNC=1: wait after every launch
  cublasLtContext* cublas = nullptr;  ///< cuBLASLt's handle
  /// Of products. Its size is fixed, so that the same algorithms are chosen.
  void* workspace = nullptr;
#ifdef __CUDACC__
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
#else  // emulated, where each launch takes longer the more memory is in use
  static constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 10;
#endif
};

}  // namespace carousel
