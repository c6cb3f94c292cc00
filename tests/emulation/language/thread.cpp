#include <fmt/format.h>

#include <cstring>

#include "tests/emulation/language/fiber.h"
#include "tests/emulation/language/random.h"
#include "tests/emulation/language/sanitizer.h"
#include "tests/emulation/language/scheduler.h"

// The part of the scheduler that a kernel's threads call. This file is compiled without
// ThreadSanitizer, so its plain fields are not reported as races.

namespace emulation {
namespace {

void forbid_waiters(const Barrier& barrier, const char* name) {
  if (barrier.arrived == 0) return;
  const Thread* other = barrier.first;
  while (other->barrier != &barrier) ++other;
  fail("divergent {}: {}, but {} ended without it", name, *other, running());
}

unsigned arrive(Barrier& barrier, const char* name, Site at, bool predicate) {
  Thread& self = running();
  if (barrier.exited != nullptr) {
    fail("divergent {}: {} came to {} after {} had ended", name, self, at, *barrier.exited);
  }
  if (barrier.arrived > 0 && !same(barrier.site, at)) {
    const Thread* other = barrier.first;
    while (other->barrier != &barrier) ++other;
    fail("divergent {}: {}, but {} came to {}", name, *other, self, at);
  }
  barrier.site = at;
  const unsigned now = barrier.generation & 1U;
  barrier.predicates[now] += predicate;
  release(&barrier.order[now]);
  if (++barrier.arrived < barrier.size) {
    self.barrier = &barrier;
    wait_here(name, at);
  } else {
    barrier.arrived = 0;
    barrier.predicates[++barrier.generation & 1U] = 0;
    for (unsigned t = 0; t < barrier.size; ++t) {
      if (barrier.first[t].barrier == &barrier) wake(barrier.first[t]);
    }
    if (random_below(2) == 0) yield();  // the last to arrive does not always run first
  }
  acquire(&barrier.order[now]);
  return barrier.predicates[now];
}

}  // namespace

void run_thread() noexcept {
  acquire(&launch->started);
  launch->kernel.thread();
  Thread& self = running();
  forbid_waiters(self.block->barrier, "__syncthreads");
  forbid_waiters(self.block->cluster->barrier, "cluster barrier");
  self.block->barrier.exited = &self;
  self.block->cluster->barrier.exited = &self;
  leave_warp(self);
  launch->idle = 0;
  self.state = Thread::State::ended;
  release(&launch->ended);
}

Thread& running() { return *launch->thread; }

void yield() {
  Thread& self = running();
  launch->ready[launch->ready_count++] = &self;
  suspend();
}

void wait_here(const char* what, Site at) {
  Thread& self = running();
  self.state = Thread::State::waiting;
  self.waits_for = what;
  self.site = at;
  suspend();
}

void wake(Thread& thread) {
  thread.state = Thread::State::ready;
  thread.waits_for = nullptr;
  thread.barrier = nullptr;
  launch->ready[launch->ready_count++] = &thread;
  launch->idle = 0;
}

bool same(Site a, Site b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

void fail_with(fmt::string_view text, fmt::format_args values) {
  launch->failure = fmt::vformat(text, values);
  release(&launch->ended);
  suspend();
  __builtin_unreachable();
}

unsigned block_barrier(Site at, bool predicate) {
  return arrive(running().block->barrier, "__syncthreads", at, predicate);
}

void cluster_barrier(Site at) {
  arrive(running().block->cluster->barrier, "cluster barrier", at, false);
}

void spin_point(Site at) {
  Thread& self = running();
  self.waits_for = "a value";
  self.site = at;
  // Each thread that can run has run hundreds of times, and none made progress.
  if (++launch->idle > 100'000 + 500 * std::uint64_t{launch->live}) {
    fail("stuck: {}, and no thread makes progress", self);
  }
  yield();
  self.waits_for = nullptr;
}

void progress() { launch->idle = 0; }

void fence() {
  static std::uint64_t order = 0;
  acquire(&order);
  release(&order);
}

void* shared_memory(std::size_t bytes) {
  if (bytes > launch->kernel.shared_bytes) {
    fail("the kernel uses {} bytes of shared memory, its launch gave {}", bytes,
         launch->kernel.shared_bytes);
  }
  return running().block->shared;
}

void* peer_shared_memory(const void* own, unsigned rank) {
  const Block& block = *running().block;
  if (rank >= launch->kernel.cluster) fail("no block {} in the cluster", rank);
  const auto offset = static_cast<const unsigned char*>(own) - block.shared;
  return block.cluster->blocks[rank].shared + offset;
}

unsigned cluster_rank() {
  const Block& block = *running().block;
  return static_cast<unsigned>(&block - block.cluster->blocks);
}

}  // namespace emulation

fmt::appender fmt::formatter<emulation::Site>::format(emulation::Site site,
                                                      fmt::format_context& context) const {
  return fmt::format_to(context.out(), "{}:{}", site.file, site.line);
}

fmt::appender fmt::formatter<emulation::Thread>::format(const emulation::Thread& thread,
                                                        fmt::format_context& context) const {
  const uint3 t = thread.index;
  const uint3 b = thread.block->index;
  fmt::format_to(context.out(), "thread ({}, {}, {}) of block ({}, {}, {})", t.x, t.y, t.z, b.x,
                 b.y, b.z);
  if (thread.waits_for == nullptr) return context.out();
  return fmt::format_to(context.out(), " waits for {} at {}", thread.waits_for, thread.site);
}
