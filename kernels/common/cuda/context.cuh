#pragma once

#include <cuda_runtime.h>

#include "kernels/common/check.h"

struct cublasLtContext;

namespace carousel {

class Cuda;

/// Throws CudaError "<file>:<line>: <what>: <the runtime's text>" unless `status` is success.
void check_cuda(cudaError_t status, const char* what, Where at = Where::here());

/// Throws CudaError "<what> is no part of a graph, and one is being captured" while one is. For what
/// CUDA would take into a graph, where it would mean something else: memory that the graph owns, host
/// values as they are when it is launched, a fence that moves when it runs.
void refuse_in_capture(const Cuda& device, const char* what);

/// Everything a Cuda device owns. One per Cuda value made, shared by its copies.
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
  cublasLtContext* cublas = nullptr;  ///< cuBLASLt's handle; null under emulation
  void* workspace = nullptr;  ///< for products: fixed size, so that algorithms are repeatable
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
};

}  // namespace carousel
