#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <numeric>
#include <vector>

#include "tests/emulation/language/fiber.h"
#include "tests/emulation/language/random.h"
#include "tests/emulation/language/sanitizer.h"
#include "tests/emulation/language/scheduler.h"
#include "tests/emulation/runtime/memory.h"

// The part of the scheduler that runs between fibers.

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {

std::uint64_t random_state = 1;
Launch* launch = nullptr;

namespace {

constexpr std::size_t kCanaryBytes = 64;
constexpr unsigned char kCanary = 0xC5;

/// A launch and its resident blocks.
class Grid : public Launch {
 public:
  explicit Grid(const Kernel& kernel);
  ~Grid();
  void run();

 private:
  void start(Cluster& cluster);
  void retire(Cluster& cluster);
  void run_next();
  unsigned char* make_shared();
  void make_orders(Block& block);
  void check_shared(const Block& block);
  void check_stuck();

  unsigned block_threads_, block_warps_;
  std::uint64_t clusters_, next_ = 0, stride_ = 1, offset_ = 0;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<Block> blocks_;
  std::vector<Cluster> resident_;
  std::vector<Thread*> ready_;
};

Grid::Grid(const Kernel& launched)
    : Launch{.kernel = launched},
      block_threads_(kernel.block.x * kernel.block.y * kernel.block.z),
      block_warps_((block_threads_ + 31) / 32),
      clusters_(std::uint64_t{kernel.grid.x} * kernel.grid.y * kernel.grid.z / kernel.cluster) {
  const std::uint64_t cluster_threads = std::uint64_t{block_threads_} * kernel.cluster;
  // Several blocks, so that races between blocks can happen, but few, so that most start later.
  const std::uint64_t limit = std::max<std::uint64_t>(2, 1024 / cluster_threads);
  const std::uint64_t wanted =
      kernel.cooperative ? clusters_ : std::min<std::uint64_t>(limit, 2 + random_below(4));
  const auto resident = static_cast<std::size_t>(std::min(wanted, clusters_));
  // Blocks start in an arbitrary order: a stride that is coprime to the grid's size.
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

Grid::~Grid() {
  for (const Block& block : blocks_) {
    std::free(block.shared);
    std::free(block.orders);
  }
  for (const Thread& gone : threads_) delete[] gone.pending;
}

unsigned char* Grid::make_shared() {
  if (kernel.shared_bytes == 0) return nullptr;
  const std::size_t canary = kAddressSanitizer ? 0 : kCanaryBytes;
  void* memory = nullptr;
  tsan_ignore(true);  // new memory: not ordered after the block that used it before
  if (posix_memalign(&memory, 128, kernel.shared_bytes + canary) != 0) throw std::bad_alloc();
  fill_fresh(memory, kernel.shared_bytes);
  tsan_ignore(false);
  auto* bytes = static_cast<unsigned char*>(memory);
  for (std::size_t i = 0; i < canary; ++i) bytes[kernel.shared_bytes + i] = kCanary;
  return bytes;
}

void Grid::check_shared(const Block& block) {
  if (kAddressSanitizer || block.shared == nullptr) return;
  for (std::size_t i = 0; i < kCanaryBytes; ++i) {
    if (block.shared[kernel.shared_bytes + i] == kCanary) continue;
    const uint3 at = block.index;
    failure = fmt::format("block ({}, {}, {}) wrote past the end of its {} bytes of shared memory",
                          at.x, at.y, at.z, kernel.shared_bytes);
    return;
  }
}

/// New synchronisation objects for a block's barriers, so that none orders it after an earlier block.
void Grid::make_orders(Block& block) {
  const std::size_t places = 4 + std::size_t{block_warps_} * kWarpOrders;
  if (kThreadSanitizer || block.orders == nullptr) {
    tsan_ignore(true);
    std::free(block.orders);
    block.orders = static_cast<std::uint64_t*>(std::calloc(places, sizeof(std::uint64_t)));
    tsan_ignore(false);
    if (block.orders == nullptr) throw std::bad_alloc();
  }
  block.barrier.order = block.orders;
  if (&block == block.cluster->blocks) block.cluster->barrier.order = block.orders + 2;
  for (unsigned w = 0; w < block_warps_; ++w) {
    block.warps[w].order = block.orders + 4 + std::size_t{w} * kWarpOrders;
  }
}

/// Makes the next cluster of the grid resident.
void Grid::start(Cluster& cluster) {
  const std::uint64_t first = (offset_ + next_++ * stride_) % clusters_ * kernel.cluster;
  cluster.live = kernel.cluster * block_threads_;
  cluster.barrier = {.first = cluster.blocks->threads, .size = cluster.live};
  live += cluster.live;
  for (unsigned b = 0; b < kernel.cluster; ++b) {
    Block& block = cluster.blocks[b];
    block.barrier = {.first = block.threads, .size = block_threads_};
    make_orders(block);
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
      block.threads[t].copies = block.threads[t].group = 0;
      ready[ready_count++] = &block.threads[t];
    }
  }
}

void Grid::retire(Cluster& cluster) {
  for (unsigned b = 0; b < kernel.cluster && failure.empty(); ++b) check_shared(cluster.blocks[b]);
  if (failure.empty() && next_ < clusters_) start(cluster);
}

void Grid::run_next() {
  const std::uint64_t pick = random_below(ready_count);
  Thread& next = *ready[pick];
  ready[pick] = ready[--ready_count];
  if (next.state == Thread::State::fresh) {
    next.fiber = take_fiber(run_thread);
    next.state = Thread::State::ready;
  }
  thread = &next;
  threadIdx = next.index;
  blockIdx = next.block->index;
  resume(next.fiber);
  if (next.state != Thread::State::ended || !failure.empty()) return;
  give_back(next.fiber);
  next.fiber = nullptr;
  --live;
  if (--next.block->cluster->live == 0) retire(*next.block->cluster);
}

void Grid::check_stuck() {
  if (!failure.empty() || live == 0) return;
  for (const Thread& stuck : threads_) {
    if (stuck.state != Thread::State::waiting) continue;
    failure = fmt::format("stuck: {}, and none of the {} threads left can run", stuck, live);
    return;
  }
}

void Grid::run() {
  for (Cluster& cluster : resident_) start(cluster);
  release(&started);
  while (ready_count > 0 && failure.empty()) run_next();
  check_stuck();
  for (const Thread& left : threads_) {
    if (left.fiber != nullptr) abandon(left.fiber, &ended);
  }
  acquire(&ended);
}

}  // namespace

std::string run_kernel(const Kernel& kernel) {
  blockDim = kernel.block;
  gridDim = kernel.grid;
  Grid grid(kernel);
  launch = &grid;
  grid.run();
  launch = nullptr;
  if (grid.failure.empty()) return "";
  return symbol_name(kernel.address) + ": " + grid.failure;
}

}  // namespace emulation
