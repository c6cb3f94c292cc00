#pragma once

#include <cstddef>
#include <functional>
#include <string>

#include "tests/emulation/language/types.h"

// The one scheduler: threads of the resident blocks are fibers of the calling OS thread, and which
// of those that can run does so next is drawn from a seeded generator. A fiber runs until it waits
// or ends.

namespace emulation {

/// A launch as cudaLaunchKernelEx gave it. `thread` is what each thread runs.
struct Kernel {
  const void* address = nullptr;
  dim3 grid, block;
  unsigned cluster = 1;
  bool cooperative = false;
  std::size_t shared_bytes = 0;
  std::function<void()> thread;
};

/// Runs a launch to its end. Gives what went wrong, or nothing.
std::string run_kernel(const Kernel& kernel);

/// The name of a function of this executable, as the linker has it, for good; and for readers.
const std::string& mangled_name(const void* address);
std::string symbol_name(const void* address);

// One OS thread holds them all: few multiprocessors and an odd number of them, with 1024 threads
// each just under ThreadSanitizer's limit.
inline constexpr unsigned kMultiprocessors = 7;
inline constexpr unsigned kThreadsPerMultiprocessor = 1024;
inline constexpr std::size_t kSharedLimit = std::size_t{227} << 10;
inline constexpr std::size_t kSharedPerMultiprocessor = std::size_t{228} << 10;

}  // namespace emulation
