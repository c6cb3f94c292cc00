#include <chrono>
#include <utility>

#include "tests/emulation/runtime/stream.h"

// CUDA's streams, events and graphs.

using emulation::drain;
using emulation::find_stream;
using emulation::lose_capture;
using emulation::status;
using emulation::Stream;
using emulation::submit;
using Clock = std::chrono::steady_clock;

struct CUevent_st {
  std::shared_ptr<Stream> stream;  // of the last record; null if there was none
  std::uint64_t ticket = 0;
  std::shared_ptr<Clock::time_point> time;
};
struct CUgraph_st {
  std::vector<emulation::Request> requests;
};
struct CUgraphExec_st {
  std::vector<emulation::Request> requests;
};

namespace {

std::lock_guard<std::recursive_mutex> lock() { return std::lock_guard(emulation::runtime_mutex()); }

}  // namespace

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  const auto held = lock();
  *stream = emulation::add_stream();
  return status();
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  const auto held = lock();
  const auto stream = find_stream(handle);
  if (stream == nullptr || handle == nullptr) return cudaErrorInvalidResourceHandle;
  drain(*stream, stream->last());
  emulation::remove_stream(handle);
  return status();
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  const auto held = lock();
  const auto stream = find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->recording) return lose_capture(*stream);
  drain(*stream, stream->last());
  emulation::trim_pool();
  return status();
}

cudaError_t cudaDeviceSynchronize() {
  const auto held = lock();
  emulation::drain_all();
  return status();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  const auto held = lock();
  const auto stream = find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->recording) return lose_capture(*stream);
  if (event->stream == nullptr) return status();
  const auto work = [other = event->stream, ticket = event->ticket] { drain(*other, ticket); };
  submit(*stream, [work] { return work; });
  return status();
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  const auto held = lock();
  *event = new CUevent_st;
  return status();
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const auto held = lock();
  delete event;
  return status();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  const auto held = lock();
  const auto stream = find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->recording) return lose_capture(*stream);
  const auto time = std::make_shared<Clock::time_point>();
  submit(*stream, [time] { return [time] { *time = Clock::now(); }; });
  *event = {.stream = stream, .ticket = stream->last(), .time = time};
  return status();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const auto held = lock();
  if (event->stream != nullptr) drain(*event->stream, event->ticket);
  return status();
}

/// Each query runs one more piece of work, so that a host that polls makes progress.
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const auto held = lock();
  if (event->stream == nullptr || event->stream->done >= event->ticket) return status();
  drain(*event->stream, event->stream->done + 1);
  return status() == cudaSuccess ? cudaErrorNotReady : status();
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  const auto held = lock();
  if (start->stream == nullptr || end->stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (start->stream->done < start->ticket || end->stream->done < end->ticket) {
    return cudaErrorNotReady;
  }
  const std::chrono::duration<float, std::milli> elapsed = *end->time - *start->time;
  *milliseconds = elapsed.count();
  return status();
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode) {
  const auto held = lock();
  const auto stream = find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->recording || handle == nullptr) return cudaErrorStreamCaptureUnsupported;
  stream->recording = std::make_unique<std::vector<emulation::Request>>();
  return status();
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  const auto held = lock();
  const auto stream = find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (!stream->recording) return cudaErrorInvalidValue;
  const auto recorded = std::exchange(stream->recording, nullptr);
  const bool lost = std::exchange(stream->capture_lost, false);
  *graph = lost ? nullptr : new CUgraph_st{std::move(*recorded)};
  return lost ? cudaErrorStreamCaptureInvalidated : status();
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* capturing) {
  const auto held = lock();
  const auto stream = find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  *capturing = cudaStreamCaptureStatusNone;
  if (stream->recording) *capturing = cudaStreamCaptureStatusActive;
  if (stream->capture_lost) *capturing = cudaStreamCaptureStatusInvalidated;
  return status();
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, CUgraphNode_st**, std::size_t* count) {
  const auto held = lock();
  *count = graph->requests.size();
  return status();
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long) {
  const auto held = lock();
  *executable = new CUgraphExec_st{graph->requests};
  return status();
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t handle) {
  const auto held = lock();
  const auto stream = find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  for (const auto& request : executable->requests) submit(*stream, request);
  return status();
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const auto held = lock();
  delete graph;
  return status();
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const auto held = lock();
  delete executable;
  return status();
}
