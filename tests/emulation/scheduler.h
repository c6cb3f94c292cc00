#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "tests/emulation/intrinsics.h"
#include "tests/emulation/language.h"

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

/// From a running thread: ends the launch with this message. Does not return.
[[noreturn]] void fail(const std::string& what);

/// Fills with 0x7FF1, which is NaN in every floating-point type and absurd as an integer.
void fill_fresh(void* memory, std::size_t bytes);
inline constexpr std::uint64_t kFreshWord = 0x7FF17FF17FF17FF1U;

/// The name of a function of this executable.
std::string symbol_name(const void* address);

// One OS thread holds them all.
inline constexpr unsigned kMultiprocessors = 7;  // few and odd; with 1024 threads each, just
inline constexpr unsigned kThreadsPerMultiprocessor = 1024;  // under ThreadSanitizer's limit
inline constexpr std::size_t kSharedLimit = std::size_t{227} << 10;
inline constexpr std::size_t kSharedPerMultiprocessor = std::size_t{228} << 10;

// What scheduler.cpp and warp.cpp share.

struct Fiber;
struct Block;
struct Warp;

/// All threads of a block, or of a cluster, arrive; then all leave. Two sets of everything, for a
/// thread may arrive at the next before all have left this one.
struct Barrier {
  struct Thread* first = nullptr;  // its threads lie side by side
  unsigned size = 0, arrived = 0, generation = 0;
  Site site{};                     // of those that wait
  const Thread* exited = nullptr;  // some thread that has ended
  unsigned predicates[2] = {};
  std::uint64_t order[2] = {};  // ThreadSanitizer's edges
};

struct Thread {
  enum class State : std::uint8_t { fresh, ready, waiting, ended };
  uint3 index{};  // in its block
  State state = State::fresh;
  Fiber* fiber = nullptr;
  void* tsan = nullptr;
  Block* block = nullptr;
  Warp* warp = nullptr;
  unsigned lane = 0;
  const Barrier* barrier = nullptr;  // where it waits
  const char* waits_for = nullptr;
  Site site{};
  std::uint64_t value = 0;  // brought to a warp's collective, and taken from it
  unsigned source = 0;
};

enum class Collective : std::uint8_t { syncwarp, shuffle, ballot };

/// Lanes that wait for each other.
struct Gathering {
  unsigned mask = 0, arrived = 0, order = 0;
  Collective kind{};
  Site site{};
};

struct Warp {
  Thread* lanes = nullptr;
  unsigned live = 0, gatherings = 0, orders = 0;
  Gathering gathering[32];
  std::uint64_t order[64] = {};
};

struct Block {
  Thread* threads = nullptr;
  Warp* warps = nullptr;
  uint3 index{};  // in the grid
  struct Cluster* cluster = nullptr;
  Barrier barrier;
  unsigned char* shared = nullptr;
};

struct Cluster {
  Block* blocks = nullptr;
  Barrier barrier;
  unsigned live = 0;
};

Thread& running();
void yield();                               // others may run first
void wait_here(const char* what, Site at);  // until wake()
void wake(Thread& thread);
void leave_warp(Thread& thread);
std::string describe(const Thread& thread);
bool same(Site a, Site b);

}  // namespace emulation
