#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/emulation/runtime/runtime.h"

// Streams are lazy: work runs when something waits for it, not before. What may happen late on a
// GPU does happen late here, so that code that relies on luck fails.

namespace emulation {

using Work = std::function<void()>;
/// A request to the runtime. It is called each time it is queued, eagerly or by a graph's launch,
/// and returns the work to do in the stream's order.
using Request = std::function<Work()>;

struct Stream {
  std::deque<Work> queue;
  std::uint64_t done = 0;  // pieces of work that have run since the stream was made
  std::unique_ptr<std::vector<Request>> recording;
  bool capture_lost = false;  // a request came that cannot be captured
  std::uint64_t last() const { return done + queue.size(); }
};

/// Every function of the runtime holds it.
std::recursive_mutex& runtime_mutex();

/// Null if the handle is not a stream's.
std::shared_ptr<Stream> find_stream(cudaStream_t handle);
cudaStream_t add_stream();
void remove_stream(cudaStream_t handle);

/// The status of a call that a capture does not allow. The capture is then lost and can only end.
cudaError_t lose_capture(Stream& stream);

/// Queues the request, or records it during a capture.
void submit(Stream& stream, const Request& request);

/// Runs the stream until `ticket` pieces of its work have run. Stops at a failure.
void drain(Stream& stream, std::uint64_t ticket);
void drain_all();

/// What the memory pool does at a wait.
void trim_pool();

/// cudaSuccess, or the failure that every call reports once there is one.
cudaError_t status();
void set_failure(const std::string& text);
const std::string& failure_text();

}  // namespace emulation
