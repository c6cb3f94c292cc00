#include "tests/emulation/runtime/stream.h"

#include <cstdlib>
#include <map>

#include "tests/emulation/language/random.h"
#include "tests/emulation/language/sanitizer.h"
#include "tests/emulation/runtime/memory.h"

namespace emulation {
namespace {

std::string failure;

std::map<cudaStream_t, std::shared_ptr<Stream>>& streams() {
  static auto& all =
      *new std::map<cudaStream_t, std::shared_ptr<Stream>>{{nullptr, std::make_shared<Stream>()}};
  return all;
}

}  // namespace

const std::string& failure_text() { return failure; }

cudaStream_t add_stream() {
  auto stream = std::make_shared<Stream>();
  const auto handle = reinterpret_cast<cudaStream_t>(stream.get());
  streams().emplace(handle, std::move(stream));
  return handle;
}

void remove_stream(cudaStream_t handle) { streams().erase(handle); }

void drain_all() {
  for (const auto& [handle, stream] : streams()) drain(*stream, stream->last());
}

std::recursive_mutex& runtime_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

std::shared_ptr<Stream> find_stream(cudaStream_t handle) {
  const auto found = streams().find(handle);
  return found == streams().end() ? nullptr : found->second;
}

cudaError_t lose_capture(Stream& stream) {
  stream.capture_lost = true;
  return cudaErrorStreamCaptureUnsupported;
}

void submit(Stream& stream, const Request& request) {
  if (stream.recording) {
    stream.recording->push_back(request);
  } else {
    stream.queue.push_back(request());
  }
}

void drain(Stream& stream, std::uint64_t ticket) {
  if (stream.done >= ticket || stream.queue.empty()) return;
  const DeviceAccess access;
  while (stream.done < ticket && !stream.queue.empty() && failure.empty()) {
    const Work work = std::move(stream.queue.front());
    stream.queue.pop_front();
    ++stream.done;
    try {
      work();
    } catch (const std::exception& e) {
      set_failure(e.what());
    }
  }
}

cudaError_t status() { return failure.empty() ? cudaSuccess : cudaErrorLaunchFailure; }

void set_failure(const std::string& text) {
  if (failure.empty()) failure = text;
}

void reset() {
  const std::lock_guard lock(runtime_mutex());
  failure.clear();
  for (auto& [handle, stream] : streams()) {
    stream->done = stream->last();
    stream->queue.clear();
    stream->recording.reset();
    stream->capture_lost = false;
  }
}

/// Sets the seed of the environment before main().
const bool kSeeded = [] {
  const char* const text = std::getenv("CAROUSEL_EMULATION_SEED");
  set_seed(text == nullptr ? 1 : std::strtoull(text, nullptr, 10));
  return true;
}();

void set_seed(std::uint64_t seed) { random_state = seed * 0x9E3779B97F4A7C15U | 1U; }

void enqueue(cudaStream_t handle, std::function<void()> work) {
  const std::lock_guard lock(runtime_mutex());
  submit(*find_stream(handle), [work] { return work; });
}

}  // namespace emulation
