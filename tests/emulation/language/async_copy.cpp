#include <cstdint>
#include <cstring>

#include "tests/emulation/language/sanitizer.h"
#include "tests/emulation/language/scheduler.h"
#include "tests/emulation/runtime/memory.h"

// cp.async: a copy happens when its thread waits for it, which is as late as possible. Until then
// the destination holds the pattern of fresh memory.

namespace emulation {
namespace {

constexpr std::size_t kBytes = 16;

/// The sanitizers see this copy, because they intercept memcpy and memset.
void land(const PendingCopy& copy) {
  if (copy.from == nullptr) {
    std::memset(copy.to, 0, kBytes);
  } else {
    std::memcpy(copy.to, copy.from, kBytes);
  }
}

bool misaligned(const void* memory) {
  return reinterpret_cast<std::uintptr_t>(memory) % kBytes != 0;
}

}  // namespace

void copy_later(void* to, const void* from) {
  Thread& self = running();
  if (misaligned(to) || misaligned(from)) fail("cp.async of 16 bytes that are not aligned");
  if (self.copies == kPendingCopies) fail("more copies in flight than the emulation holds");
  if (self.pending == nullptr) {
    tsan_ignore(true);
    self.pending = new PendingCopy[kPendingCopies];
    tsan_ignore(false);
  }
  fill_fresh(to, kBytes);
  self.pending[self.copies++] = {.to = to, .from = from, .group = self.group};
}

void commit_copies() { ++running().group; }

void wait_copies(unsigned newest) {
  Thread& self = running();
  unsigned landed = 0;
  while (landed < self.copies && self.pending[landed].group + newest < self.group) {
    land(self.pending[landed++]);
  }
  for (unsigned i = landed; i < self.copies; ++i) self.pending[i - landed] = self.pending[i];
  self.copies -= landed;
}

}  // namespace emulation
