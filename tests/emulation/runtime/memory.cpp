#include "tests/emulation/runtime/memory.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>

#include "tests/emulation/language/sanitizer.h"

namespace emulation {
namespace {

// Address space. It is larger than the device's memory, so that a freed address is reused late.
constexpr std::size_t kRegionBytes = std::size_t{kAddressSanitizer || kThreadSanitizer ? 16 : 64}
                                     << 30;
// What is freed stays unused this long. The time to open and close device memory around a kernel
// grows with the pages in use.
constexpr std::size_t kQuarantineBytes = std::size_t{4} << 20;
constexpr std::size_t kRedzoneBytes = 256;
constexpr std::size_t kPageBytes = 4096;
constexpr unsigned char kCanary = 0xC5;

struct Freed {
  char* block;
  std::size_t bytes;
};

struct Region {
  char* base = nullptr;
  std::size_t used = 0;        // bytes from base that were once part of an allocation
  std::size_t live_bytes = 0;  // of allocations
  std::size_t peak_bytes = 0, allocations = 0;
  int open = 0;  // DeviceAccess objects
  std::map<char*, std::size_t> live;
  std::deque<Freed> quarantine;
  std::size_t quarantine_bytes = 0;
  std::multimap<std::size_t, char*> reusable;
  struct sigaction previous {};
};

Region& region();

/// Bytes of an allocation and the redzone after it.
std::size_t span(std::size_t bytes) {
  return (bytes + kRedzoneBytes + kRedzoneBytes - 1) / kRedzoneBytes * kRedzoneBytes;
}

void on_fault(int signal, siginfo_t* info, void* context) {
  const auto* address = static_cast<const char*>(info->si_addr);
  Region& r = region();
  if (address < r.base || address >= r.base + kRegionBytes) {
    sigaction(signal, &r.previous,
              nullptr);  // not this region: repeat the fault under the old handler
    return;
  }
  (void)context;
  char line[160];
  const char* const text = r.open > 0
                               ? "device code touched memory at %p that no allocation ever held\n"
                               : "host code touched device memory at %p outside a kernel or copy\n";
  const int length = std::snprintf(line, sizeof line, text, info->si_addr);
  if (write(STDERR_FILENO, line, static_cast<std::size_t>(length)) < 0) std::_Exit(1);
  std::abort();
}

/// What a GPU's memory holds: what was there before.
bool unfilled() {
  static const bool chosen = std::getenv("CAROUSEL_EMULATION_UNFILLED") != nullptr;
  return chosen;
}

void print_counters() {
  std::fprintf(stderr, "emulated device: %zu bytes at most, %zu allocations\n", region().peak_bytes,
               region().allocations);
}

Region* make_region() {
  auto* made = new Region;
  if (std::getenv("CAROUSEL_EMULATION_COUNTERS") != nullptr) std::atexit(print_counters);
  void* base =
      mmap(nullptr, kRegionBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    std::perror("emulated device memory");
    std::abort();
  }
  made->base = static_cast<char*>(base);
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &made->previous);
  return made;
}

Region& region() {
  static Region& only = *make_region();
  return only;
}

/// A block of at least `bytes`: one that left the quarantine, or one from the region's unused part.
char* take_block(Region& r, std::size_t bytes) {
  const auto old = r.reusable.lower_bound(bytes);
  if (old != r.reusable.end()) {
    const auto [size, block] = *old;
    r.reusable.erase(old);
    if (size > bytes) r.reusable.emplace(size - bytes, block + bytes);
    return block;
  }
  if (r.used == 0) r.used = kRedzoneBytes;  // a redzone before the first
  if (r.used + bytes > kRegionBytes) return nullptr;
  char* const block = r.base + r.used;
  r.used += bytes;
  return block;
}

bool intact(const char* redzone, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) {
    if (static_cast<unsigned char>(redzone[i]) != kCanary) return false;
  }
  return true;
}

}  // namespace

void fill_fresh(void* memory, std::size_t bytes) {
  const std::uint16_t word = 0x7FF1;
  auto* to = static_cast<unsigned char*>(memory);
  for (std::size_t i = 0; i + 1 < bytes; i += 2) std::memcpy(to + i, &word, 2);
  if (bytes % 2 != 0) to[bytes - 1] = word & 0xFF;
}

void* device_allocate(std::size_t bytes) {
  Region& r = region();
  bytes = std::max<std::size_t>(bytes, 1);
  if (bytes > kDeviceBytes - r.live_bytes) return nullptr;
  char* const block = take_block(r, span(bytes));
  if (block == nullptr) return nullptr;
  r.live_bytes += bytes;
  r.peak_bytes = std::max(r.peak_bytes, r.live_bytes);
  ++r.allocations;
  r.live.emplace(block, bytes);
  const DeviceAccess access(block, span(bytes));
  unpoison(block, span(bytes));
  if (!unfilled()) fill_fresh(block, bytes);
  if constexpr (!kAddressSanitizer) std::memset(block + bytes, kCanary, span(bytes) - bytes);
  poison(block + bytes, span(bytes) - bytes);
  return block;
}

bool device_release(void* memory) {
  Region& r = region();
  const auto found = r.live.find(static_cast<char*>(memory));
  if (found == r.live.end()) return false;
  const auto [block, bytes] = *found;
  r.live.erase(found);
  r.live_bytes -= bytes;
  {
    const DeviceAccess access(block, bytes);
    unpoison(block, bytes);  // an arena may have poisoned parts of it
    if (!unfilled()) fill_fresh(block, bytes);
  }
  poison(block, span(bytes));
  r.quarantine.push_back({block, span(bytes)});
  r.quarantine_bytes += span(bytes);
  while (r.quarantine_bytes > kQuarantineBytes) {
    const Freed oldest = r.quarantine.front();
    r.quarantine.pop_front();
    r.quarantine_bytes -= oldest.bytes;
    r.reusable.emplace(oldest.bytes, oldest.block);
  }
  return true;
}

bool is_device_memory(const void* memory) {
  const auto* address = static_cast<const char*>(memory);
  return address >= region().base && address < region().base + kRegionBytes;
}

bool is_allocated(const void* memory, std::size_t bytes) {
  const Region& r = region();
  auto* address = static_cast<char*>(const_cast<void*>(memory));
  auto after = r.live.upper_bound(address);
  if (after == r.live.begin()) return false;
  const auto& [block, size] = *--after;
  return bytes <= size && address <= block + (size - bytes);
}

std::string damage() {
  if constexpr (kAddressSanitizer) return "";
  const DeviceAccess access;
  for (const auto& [block, bytes] : region().live) {
    char* const end = block + bytes;
    const std::size_t redzone = span(bytes) - bytes;
    if (intact(end, redzone)) continue;
    std::memset(end, kCanary, redzone);
    return fmt::format("wrote past the end of the {} bytes at {}", bytes, fmt::ptr(block));
  }
  return "";
}

DeviceAccess::DeviceAccess() : DeviceAccess(region().base, region().used) {}

DeviceAccess::DeviceAccess(const void* memory, std::size_t bytes) {
  Region& r = region();
  if (++r.open > 1) return;
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(memory) - r.base);
  first_ = r.base + offset / kPageBytes * kPageBytes;
  bytes_ = static_cast<std::size_t>(static_cast<const char*>(memory) + bytes - first_);
  if (bytes_ != 0) mprotect(first_, bytes_, PROT_READ | PROT_WRITE);
}

DeviceAccess::~DeviceAccess() {
  if (--region().open == 0 && bytes_ != 0) mprotect(first_, bytes_, PROT_NONE);
}

}  // namespace emulation
