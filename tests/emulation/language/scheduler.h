#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "tests/emulation/language/collectives.h"
#include "tests/emulation/language/kernel.h"
#include "tests/emulation/language/types.h"

// What the parts of the scheduler share: launch.cpp, thread.cpp, warp.cpp and async_copy.cpp.

namespace emulation {

inline constexpr std::uint64_t kFreshWord = 0x7FF17FF17FF17FF1U;

struct Fiber;
struct Block;
struct Warp;

/// All threads of a block, or of a cluster, arrive; then all leave. Counts and synchronisation
/// objects exist twice, because a thread may arrive at the next barrier before all have left this.
struct Barrier {
  struct Thread* first = nullptr;  // the first of its threads, which are contiguous
  unsigned size = 0, arrived = 0, generation = 0;
  Site site{};                     // where the threads wait
  const Thread* exited = nullptr;  // some thread that has ended
  unsigned predicates[2] = {};
  std::uint64_t* order = nullptr;  // two synchronisation objects for ThreadSanitizer
};

struct PendingCopy {
  void* to;
  const void* from;
  unsigned group;
};
inline constexpr unsigned kPendingCopies = 32;

struct Thread {
  enum class State : std::uint8_t { fresh, ready, waiting, ended };
  uint3 index{};  // in its block
  State state = State::fresh;
  Fiber* fiber = nullptr;
  Block* block = nullptr;
  Warp* warp = nullptr;
  unsigned lane = 0;
  const Barrier* barrier = nullptr;  // at which it waits
  const char* waits_for = nullptr;
  Site site{};
  std::uint64_t value = 0;  // given to a warp function, then its result
  unsigned source = 0;
  unsigned copies = 0, group = 0;  // of cp.async
  PendingCopy* pending = nullptr;  // allocated at the first copy
};

enum class Collective : std::uint8_t { syncwarp, shuffle, ballot, product };

/// Lanes that wait for each other in one warp function.
struct Gathering {
  unsigned mask = 0, arrived = 0, order = 0;
  Collective kind{};
  Site site{};
};

inline constexpr unsigned kWarpOrders = 64;

struct Warp {
  Thread* lanes = nullptr;
  unsigned live = 0, gatherings = 0, orders = 0;
  Gathering gathering[32];
  std::uint64_t* order = nullptr;  // kWarpOrders synchronisation objects
};

struct Block {
  Thread* threads = nullptr;
  Warp* warps = nullptr;
  uint3 index{};  // in the grid
  struct Cluster* cluster = nullptr;
  Barrier barrier;
  unsigned char* shared = nullptr;
  std::uint64_t* orders = nullptr;
};

struct Cluster {
  Block* blocks = nullptr;
  Barrier barrier;
  unsigned live = 0;
};

/// The launch that runs, for all parts of the scheduler.
struct Launch {
  const Kernel& kernel;
  Thread* thread = nullptr;  // the running one
  Thread** ready = nullptr;  // those that can run; it has room for all
  unsigned ready_count = 0;
  unsigned live = 0;       // threads of resident blocks that have not ended
  std::uint64_t idle = 0;  // spin points passed since the last progress
  std::string failure{};
  std::uint64_t started = 0, ended = 0;  // order the launch after and before the host
};
extern Launch* launch;

void run_thread() noexcept;  // a fiber's body
Thread& running();
void yield();                               // lets other threads run
void wait_here(const char* what, Site at);  // until wake()
void wake(Thread& thread);
void leave_warp(Thread& thread);
bool same(Site a, Site b);

/// From a running thread: ends the launch with this message. The thread is abandoned here and its
/// destructors never run, so it must not own the text: fail() formats it.
[[noreturn]] void fail_with(fmt::string_view text, fmt::format_args values);
template <class... Values>
[[noreturn]] void fail(fmt::format_string<const Values&...> text, const Values&... values) {
  fail_with(text, fmt::make_format_args(values...));
}

}  // namespace emulation

template <>
struct fmt::formatter<emulation::Site> : fmt::formatter<fmt::string_view> {
  fmt::appender format(emulation::Site site, fmt::format_context& context) const;
};

/// "thread (1, 0, 0) of block (2, 0, 0)", and what it waits for if it waits.
template <>
struct fmt::formatter<emulation::Thread> : fmt::formatter<fmt::string_view> {
  fmt::appender format(const emulation::Thread& thread, fmt::format_context& context) const;
};
