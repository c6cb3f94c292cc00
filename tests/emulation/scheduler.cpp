#include "tests/emulation/scheduler.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <boost/context/detail/fcontext.hpp>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <numeric>
#include <vector>

#include "tests/emulation/random.h"
#include "tests/emulation/sanitizer.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {

std::uint64_t random_state = 1;

using boost::context::detail::fcontext_t;
using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

namespace {

constexpr std::size_t kStackBytes = kAddressSanitizer || kThreadSanitizer ? 512 << 10 : 64 << 10;
constexpr std::size_t kGuardBytes = 4096;
constexpr std::size_t kCanaryBytes = 64;
constexpr unsigned char kCanary = 0xC5;

}  // namespace

struct Fiber {
  char* stack = nullptr;  // above a guard page
  fcontext_t context = nullptr;
  void* fake_stack = nullptr;
};

namespace {

void enter_fiber(transfer_t from);

void prepare(Fiber& fiber) {
  unpoison(fiber.stack, kStackBytes);  // what an abandoned kernel left
  fiber.context = make_fcontext(fiber.stack + kStackBytes, kStackBytes, enter_fiber);
}

Fiber* make_fiber() {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardBytes, PROT_NONE);
  auto* fiber = new Fiber{.stack = static_cast<char*>(memory) + kGuardBytes};
  prepare(*fiber);
  return fiber;
}

/// One launch on its way. Its host half (run, start, retire) is the host's code between fibers; its
/// fiber half (the free functions below) touches plain fields only.
class Launch {
 public:
  explicit Launch(const Kernel& launched);
  ~Launch();
  std::string run();

  const Kernel& kernel;
  Thread* thread = nullptr;  // the running one
  Thread** ready = nullptr;  // those that could run: room for all
  unsigned ready_count = 0;
  unsigned live = 0;  // threads of resident blocks that have not ended
  std::uint64_t idle = 0;
  std::string failure;
  std::uint64_t started = 0, ended = 0;  // ThreadSanitizer's edges to and from the host
  fcontext_t host = nullptr;
  const void* host_stack = nullptr;
  std::size_t host_stack_bytes = 0;
  void* host_fake_stack = nullptr;
  void* host_tsan = nullptr;

 private:
  void start(Cluster& cluster);
  void retire(Cluster& cluster);
  void resume(Thread& next);
  void abandon();
  unsigned char* make_shared();
  void check_shared(const Block& block);

  unsigned block_threads_, block_warps_;
  std::uint64_t clusters_, next_ = 0, stride_ = 1, offset_ = 0;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<Block> blocks_;
  std::vector<Cluster> resident_;
  std::vector<Thread*> ready_;
};

Launch* launch = nullptr;
std::vector<Fiber*>& idle_fibers() {
  static auto& pool = *new std::vector<Fiber*>;
  return pool;
}
// Reused as late as possible: two threads under one name of ThreadSanitizer's cannot race.
std::deque<void*>& idle_tsan() {
  static auto& pool = *new std::deque<void*>;
  return pool;
}
constexpr std::size_t kTsanReserve = 512;

Launch::Launch(const Kernel& launched)
    : kernel(launched),
      block_threads_(kernel.block.x * kernel.block.y * kernel.block.z),
      block_warps_((block_threads_ + 31) / 32),
      clusters_(std::uint64_t{kernel.grid.x} * kernel.grid.y * kernel.grid.z / kernel.cluster) {
  const std::uint64_t cluster_threads = std::uint64_t{block_threads_} * kernel.cluster;
  // Enough blocks at once to meet each other, few enough to leave many for later.
  const std::uint64_t limit = std::max<std::uint64_t>(1, 2048 / cluster_threads);
  const std::uint64_t wanted =
      kernel.cooperative ? clusters_ : std::min<std::uint64_t>(limit, 2 + random_below(4));
  const auto resident = static_cast<std::size_t>(std::min(wanted, clusters_));
  // Blocks start in an order of no meaning: a walk round the grid with a stride prime to its size.
  offset_ = random_below(clusters_);
  do {
    stride_ = 1 + random_below(clusters_);
  } while (std::gcd(stride_, clusters_) != 1);

  resident_.resize(resident);
  blocks_.resize(resident * kernel.cluster);
  warps_.resize(blocks_.size() * block_warps_);
  threads_.resize(blocks_.size() * block_threads_);
  ready_.resize(threads_.size());
  ready = ready_.data();
  for (std::size_t c = 0; c < resident; ++c) {
    Cluster& cluster = resident_[c];
    cluster.blocks = &blocks_[c * kernel.cluster];
    for (unsigned b = 0; b < kernel.cluster; ++b) {
      const std::size_t index = c * kernel.cluster + b;
      Block& block = blocks_[index];
      block.cluster = &cluster;
      block.threads = &threads_[index * block_threads_];
      block.warps = &warps_[index * block_warps_];
      for (unsigned t = 0; t < block_threads_; ++t) {
        block.threads[t] = {.index = {t % kernel.block.x, t / kernel.block.x % kernel.block.y,
                                      t / kernel.block.x / kernel.block.y},
                            .block = &block,
                            .warp = &block.warps[t / 32],
                            .lane = t % 32};
      }
    }
  }
}

Launch::~Launch() {
  for (const Block& block : blocks_) std::free(block.shared);
}

unsigned char* Launch::make_shared() {
  if (kernel.shared_bytes == 0) return nullptr;
  const std::size_t canary = kAddressSanitizer ? 0 : kCanaryBytes;
  void* memory = nullptr;
  tsan_ignore(true);  // new memory: no order with the block that had it before
  if (posix_memalign(&memory, 128, kernel.shared_bytes + canary) != 0) throw std::bad_alloc();
  fill_fresh(memory, kernel.shared_bytes);
  tsan_ignore(false);
  auto* bytes = static_cast<unsigned char*>(memory);
  for (std::size_t i = 0; i < canary; ++i) bytes[kernel.shared_bytes + i] = kCanary;
  return bytes;
}

void Launch::check_shared(const Block& block) {
  if (kAddressSanitizer || block.shared == nullptr) return;
  for (std::size_t i = 0; i < kCanaryBytes; ++i) {
    if (block.shared[kernel.shared_bytes + i] == kCanary) continue;
    const uint3 at = block.index;
    failure = fmt::format("block ({}, {}, {}) wrote past the end of its {} bytes of shared memory",
                          at.x, at.y, at.z, kernel.shared_bytes);
    return;
  }
}

/// Gives a resident place to the next cluster of the grid.
void Launch::start(Cluster& cluster) {
  const std::uint64_t first = (offset_ + next_++ * stride_) % clusters_ * kernel.cluster;
  cluster.live = kernel.cluster * block_threads_;
  cluster.barrier = {.first = cluster.blocks->threads, .size = cluster.live};
  live += cluster.live;
  for (unsigned b = 0; b < kernel.cluster; ++b) {
    Block& block = cluster.blocks[b];
    block.barrier = {.first = block.threads, .size = block_threads_};
    tsan_ignore(true);
    std::free(block.shared);
    tsan_ignore(false);
    block.shared = nullptr;
    block.shared = make_shared();
    for (unsigned w = 0; w < block_warps_; ++w) {
      const unsigned lanes = std::min(32U, block_threads_ - w * 32);
      block.warps[w].lanes = block.threads + w * 32;
      block.warps[w].live = static_cast<unsigned>((std::uint64_t{1} << lanes) - 1);
      block.warps[w].gatherings = 0;
    }
    const std::uint64_t index = first + b;
    const std::uint64_t row = index / kernel.grid.x;
    block.index = {static_cast<unsigned>(index % kernel.grid.x),
                   static_cast<unsigned>(row % kernel.grid.y),
                   static_cast<unsigned>(row / kernel.grid.y)};
    for (unsigned t = 0; t < block_threads_; ++t) {
      block.threads[t].state = Thread::State::fresh;
      ready[ready_count++] = &block.threads[t];
    }
  }
}

void Launch::retire(Cluster& cluster) {
  for (unsigned b = 0; b < kernel.cluster && failure.empty(); ++b) check_shared(cluster.blocks[b]);
  if (failure.empty() && next_ < clusters_) start(cluster);
}

void Launch::resume(Thread& next) {
  if (next.state == Thread::State::fresh) {
    auto& fibers = idle_fibers();
    next.fiber = fibers.empty() ? make_fiber() : fibers.back();
    if (!fibers.empty()) fibers.pop_back();
    if constexpr (kThreadSanitizer) {
      auto& names = idle_tsan();
      static std::size_t made = 0;
      const bool make = names.empty() || made < kTsanReserve;
      next.tsan = make ? (++made, tsan_create()) : names.front();
      if (!make) names.pop_front();
    }
    next.state = Thread::State::ready;
  }
  thread = &next;
  threadIdx = next.index;
  blockIdx = next.block->index;
  before_switch(&host_fake_stack, next.fiber->stack, kStackBytes);
  tsan_switch(next.tsan);
  next.fiber->context = jump_fcontext(next.fiber->context, next.fiber).fctx;
  after_switch(host_fake_stack, nullptr, nullptr);
  thread = nullptr;
}

std::string Launch::run() {
  host_tsan = tsan_current();
  for (Cluster& cluster : resident_) start(cluster);
  release(&started);
  while (ready_count > 0 && failure.empty()) {
    const std::uint64_t pick = random_below(ready_count);
    Thread& next = *ready[pick];
    ready[pick] = ready[--ready_count];
    resume(next);
    if (next.state != Thread::State::ended || !failure.empty()) continue;
    idle_fibers().push_back(next.fiber);
    if (kThreadSanitizer) idle_tsan().push_back(next.tsan);
    next.fiber = nullptr;
    --live;
    if (--next.block->cluster->live == 0) retire(*next.block->cluster);
  }
  acquire(&ended);
  if (failure.empty() && live > 0) {
    for (const Thread& stuck : threads_) {
      if (stuck.state != Thread::State::waiting) continue;
      failure =
          fmt::format("stuck: {}, and none of the {} threads left can run", describe(stuck), live);
      break;
    }
  }
  if (!failure.empty()) abandon();
  return failure;
}

/// Takes the fibers back from threads that will never run again.
void Launch::abandon() {
  for (Thread& left : threads_) {
    if (left.fiber == nullptr) continue;
    prepare(*left.fiber);
    idle_fibers().push_back(left.fiber);
    // Its name is not reused: ThreadSanitizer believes it to be inside the kernel.
  }
}

// Code that fibers run.

void switch_to_host() {
  Fiber& fiber = *launch->thread->fiber;
  before_switch(&fiber.fake_stack, launch->host_stack, launch->host_stack_bytes);
  tsan_switch(launch->host_tsan);
  const transfer_t from = jump_fcontext(launch->host, nullptr);
  launch->host = from.fctx;
  // Asked for each time: the fiber may have been resumed by a launch that starts no fiber anew.
  after_switch(static_cast<Fiber*>(from.data)->fake_stack, &launch->host_stack,
               &launch->host_stack_bytes);
}

void forbid_waiters(const Barrier& barrier, const char* name) {
  if (barrier.arrived == 0) return;
  const Thread* other = barrier.first;
  while (other->barrier != &barrier) ++other;
  fail(fmt::format("divergent {}: {}, but {} ended without it", name, describe(*other),
                   describe(running())));
}

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

void enter_fiber(transfer_t from) {
  launch->host = from.fctx;
  after_switch(nullptr, &launch->host_stack, &launch->host_stack_bytes);
  for (;;) {  // one thread after another, each time the fiber is taken from the pool
    run_thread();
    switch_to_host();
  }
}

unsigned arrive(Barrier& barrier, const char* name, Site at, bool predicate) {
  Thread& self = running();
  if (barrier.exited != nullptr) {
    fail(fmt::format("divergent {}: {} came to {}:{} after {} had ended", name, describe(self),
                     at.file, at.line, describe(*barrier.exited)));
  }
  if (barrier.arrived > 0 && !same(barrier.site, at)) {
    const Thread* other = barrier.first;
    while (other->barrier != &barrier) ++other;
    fail(fmt::format("divergent {}: {}, but {} came to {}:{}", name, describe(*other),
                     describe(self), at.file, at.line));
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
    if (random_below(2) == 0) yield();  // who comes last is not always first to go on
  }
  acquire(&barrier.order[now]);
  return barrier.predicates[now];
}

}  // namespace

Thread& running() { return *launch->thread; }

void yield() {
  Thread& self = running();
  launch->ready[launch->ready_count++] = &self;
  switch_to_host();
}

void wait_here(const char* what, Site at) {
  Thread& self = running();
  self.state = Thread::State::waiting;
  self.waits_for = what;
  self.site = at;
  switch_to_host();
}

void wake(Thread& thread) {
  thread.state = Thread::State::ready;
  thread.waits_for = nullptr;
  thread.barrier = nullptr;
  launch->ready[launch->ready_count++] = &thread;
  launch->idle = 0;
}

bool same(Site a, Site b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

std::string describe(const Thread& thread) {
  const uint3 t = thread.index;
  const uint3 b = thread.block->index;
  std::string text =
      fmt::format("thread ({}, {}, {}) of block ({}, {}, {})", t.x, t.y, t.z, b.x, b.y, b.z);
  if (thread.waits_for == nullptr) return text;
  return fmt::format("{} waits for {} at {}:{}", text, thread.waits_for, thread.site.file,
                     thread.site.line);
}

void fail(const std::string& what) {
  launch->failure = what;
  release(&launch->ended);
  switch_to_host();
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
  // Each thread that could run has done so hundreds of times, and nothing came of it.
  if (++launch->idle > 100'000 + 500 * std::uint64_t{launch->live}) {
    fail(fmt::format("stuck: {}, and no thread makes progress", describe(self)));
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
    fail(fmt::format("the kernel uses {} bytes of shared memory, its launch gave {}", bytes,
                     launch->kernel.shared_bytes));
  }
  return running().block->shared;
}

void* peer_shared_memory(const void* own, unsigned rank) {
  const Block& block = *running().block;
  if (rank >= launch->kernel.cluster) fail(fmt::format("no block {} in the cluster", rank));
  const auto offset = static_cast<const unsigned char*>(own) - block.shared;
  return block.cluster->blocks[rank].shared + offset;
}

unsigned cluster_rank() {
  const Block& block = *running().block;
  return static_cast<unsigned>(&block - block.cluster->blocks);
}

std::string run_kernel(const Kernel& kernel) {
  blockDim = kernel.block;
  gridDim = kernel.grid;
  Launch current(kernel);
  launch = &current;
  std::string failure = current.run();
  launch = nullptr;
  if (!failure.empty()) failure = symbol_name(kernel.address) + ": " + failure;
  return failure;
}

}  // namespace emulation
