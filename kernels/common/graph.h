#pragma once

#include <functional>

#include "kernels/common/device.h"

struct CUgraphExec_st;  // cudaGraphExec_t is a pointer to it

namespace carousel {

/// Work that was queued on a CUDA device once and can be launched again as a whole, with the same
/// addresses and sizes. The CPU has no graphs.
class Graph {
 public:
  /// Captures the work that `queue` queues on the device; none of it runs. CudaError on the CPU,
  /// and for operations that a graph cannot contain or would not repeat: waiting, moving a fence,
  /// allocating, copying from or to host memory. Exceptions of `queue` are passed on. After an
  /// exception nothing is queued.
  Graph(const Device& device, const std::function<void()>& queue);
  ~Graph();  ///< waits for the device
  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&& other) noexcept;

  void launch() const;  ///< queues all of it again

 private:
  Device device_;
  CUgraphExec_st* graph_ = nullptr;
};

}  // namespace carousel
