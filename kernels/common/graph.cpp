#include "kernels/common/graph.h"

#include <utility>

#include "kernels/common/check.h"

namespace carousel {

#if CAROUSEL_CUDA
// kernels/common/cuda/graph.cu
CUgraphExec_st* capture_graph(const Cuda& device, const std::function<void()>& queue);
void launch_graph(const Cuda& device, CUgraphExec_st* graph);
void destroy_graph(const Cuda& device, CUgraphExec_st* graph) noexcept;

Graph::Graph(const Device& device, const std::function<void()>& queue) : device_(device) {
  const Cuda* const cuda = std::get_if<Cuda>(&device_);
  if (cuda == nullptr) throw CudaError("graph: the CPU has none, expected a CUDA device");
  graph_ = capture_graph(*cuda, queue);
}
Graph::~Graph() {
  if (graph_ != nullptr) destroy_graph(std::get<Cuda>(device_), graph_);
}
void Graph::launch() const { launch_graph(std::get<Cuda>(device_), graph_); }
#else
Graph::Graph(const Device&, const std::function<void()>&) {
  throw CudaError("graph: the CPU has none, expected a CUDA device");
}
Graph::~Graph() = default;
void Graph::launch() const {}
#endif

Graph::Graph(Graph&& other) noexcept { *this = std::move(other); }

Graph& Graph::operator=(Graph&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(graph_, other.graph_);
  return *this;
}

}  // namespace carousel
