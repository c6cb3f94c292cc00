#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tests/emulation/runtime/runtime.h"

// Streams are lazy: nothing runs before something waits for it, so that whatever may happen late
// does happen late.

namespace emulation {

using Work = std::function<void()>;
/// What the runtime was asked for. Called when it is queued, eagerly or by a graph's launch; gives
/// what to do in the stream's order.
using Request = std::function<Work()>;

struct Stream {
  std::deque<Work> queue;
  std::uint64_t done = 0;  // of all that was ever queued, how many have run
  std::unique_ptr<std::vector<Request>> recording;
  bool capture_lost = false;  // something was asked for that cannot be captured
  std::uint64_t last() const { return done + queue.size(); }
};

/// Held by every call of the runtime.
std::recursive_mutex& runtime_mutex();

/// Null for a handle that is no stream.
std::shared_ptr<Stream> find_stream(cudaStream_t handle);
cudaStream_t add_stream();
void remove_stream(cudaStream_t handle);

/// What a call answers that a capture does not allow. Only the end of the capture is left then.
cudaError_t lose_capture(Stream& stream);

/// Queues or records.
void submit(Stream& stream, const Request& request);

/// Runs the stream until `ticket` pieces of its work are done. Stops at a failure.
void drain(Stream& stream, std::uint64_t ticket);
void drain_all();

/// The failure that all calls report from now on; cudaSuccess if there is none.
cudaError_t status();
void set_failure(const std::string& text);
const std::string& failure_text();

}  // namespace emulation
