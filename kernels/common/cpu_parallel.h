#pragma once

#include <algorithm>
#include <cstdint>

namespace carousel {

/// Elements per task of a loop over a flat buffer. For fewer elements, starting the threads costs
/// more than the work. A few arrays of this size fit into the second-level cache, so that a body
/// may pass over its chunk twice.
inline constexpr std::int64_t kCpuChunk = 32'768;

/// Calls body(first, count) for the chunks of [0, size), on all threads. Chunks do not depend on
/// the number of threads.
template <class Body>
void in_chunks(std::int64_t size, const Body& body) {
#pragma omp parallel for schedule(static) if (size > kCpuChunk)
  for (std::int64_t first = 0; first < size; first += kCpuChunk) {
    body(first, std::min(kCpuChunk, size - first));
  }
}

}  // namespace carousel
