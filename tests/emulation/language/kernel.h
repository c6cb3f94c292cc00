#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "tests/emulation/language/types.h"

// The scheduler. Threads of the resident blocks are fibers of the calling OS thread. A fiber runs
// until it waits or ends; a seeded generator then draws the next one among those that can run.

namespace emulation {

/// A launch as cudaLaunchKernelEx gave it. Each thread runs `thread`.
struct Kernel {
  const void* address = nullptr;
  dim3 grid, block;
  unsigned cluster = 1;
  bool cooperative = false;
  std::size_t shared_bytes = 0;
  std::function<void()> thread;
};

/// Runs a launch to its end. Returns what went wrong, or an empty text.
std::string run_kernel(const Kernel& kernel);

/// The name of a function of this executable: the linker's, valid until the process ends, and a
/// readable one.
const std::string& mangled_name(const void* address);
std::string symbol_name(const void* address);

// All resident threads are fibers of one OS thread, so there are few multiprocessors. 7 × 1024
// threads are just below ThreadSanitizer's limit of fibers, and an odd number finds more mistakes.
inline constexpr unsigned kMultiprocessors = 7;
inline constexpr unsigned kThreadsPerMultiprocessor = 1024;
inline constexpr std::size_t kSharedLimit = std::size_t{227} << 10;
inline constexpr std::size_t kSharedPerMultiprocessor = std::size_t{228} << 10;

}  // namespace emulation
