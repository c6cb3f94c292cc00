#pragma once

#include <functional>

#include "kernels/common/device.h"

struct CUgraphExec_st;  // cudaGraphExec_t is a pointer to it

namespace carousel {

/// Work that was queued on a CUDA device once and can be launched again as one piece, with every
/// address and size it had then. There is none on the CPU.
class Graph {
 public:
  /// Captures what `queue` queues on the device; none of it runs. CudaError for what a graph cannot
  /// hold or would not repeat: waiting, moving a fence, allocating, copying from or to host memory;
  /// and on the CPU. Whatever `queue` throws comes through. The device is then as if nothing had
  /// been queued.
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
