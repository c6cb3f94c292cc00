#include "kernels/common/graph.h"

#include <cuda_runtime.h>

#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <type_traits>

#include "kernels/common/cuda/context.cuh"

namespace carousel {
namespace {

struct DestroyGraph {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};

/// Throws as check_cuda does, after clearing the runtime's last error: a failed capture sets it,
/// and a library would report it as the error of its own launch.
void check_capture(cudaError_t status, const char* what, Where at = Where::here()) {
  if (status != cudaSuccess) static_cast<void>(cudaGetLastError());
  check_cuda(status, what, at);
}

}  // namespace

void refuse_in_capture(const Cuda& device, const char* what) {
  cudaStreamCaptureStatus capturing{};
  check_cuda(cudaStreamIsCapturing(device.stream(), &capturing), what);
  if (capturing == cudaStreamCaptureStatusNone) return;
  throw CudaError(std::string(what) + " cannot be part of a graph, and one is being captured");
}

CUgraphExec_st* capture_graph(const Cuda& device, const std::function<void()>& queue) {
  if (device.context().synchronous) {
    throw CudaError(
        "graph: with CAROUSEL_SYNC=1 the host waits after every kernel, which a graph cannot");
  }
  // Only this thread is restricted during the capture: other threads use no device.
  check_capture(cudaStreamBeginCapture(device.stream(), cudaStreamCaptureModeThreadLocal),
                "beginning a capture");
  std::exception_ptr failure;
  try {
    queue();
  } catch (...) {
    failure = std::current_exception();
  }
  cudaGraph_t captured = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(device.stream(), &captured);
  const std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph> graph(captured);
  if (failure != nullptr) {
    static_cast<void>(cudaGetLastError());
    std::rethrow_exception(failure);
  }
  check_capture(ended, "ending a capture");
  cudaGraphExec_t executable = nullptr;
  check_capture(cudaGraphInstantiate(&executable, graph.get(), 0), "making a graph");
  return executable;
}

void launch_graph(const Cuda& device, CUgraphExec_st* graph) {
  check_cuda(cudaGraphLaunch(graph, device.stream()), "launching a graph");
}

void destroy_graph(const Cuda& device, CUgraphExec_st* graph) noexcept {
  // It may still run. An error of this wait is reported by the next wait for a result.
  static_cast<void>(cudaStreamSynchronize(device.stream()));
  const cudaError_t status = cudaGraphExecDestroy(graph);
  if (status != cudaSuccess) {
    std::fprintf(stderr, "destroying a graph: %s\n", cudaGetErrorString(status));
  }
}

}  // namespace carousel
