#include <fmt/format.h>

#include <cstring>

#include "tests/emulation/language/sanitizer.h"
#include "tests/emulation/language/scheduler.h"

// Warp functions. The last lane to arrive computes the result of every lane.

namespace emulation {
namespace {

const char* name(Collective kind) {
  switch (kind) {
    case Collective::syncwarp:
      return "__syncwarp";
    case Collective::shuffle:
      return "a shuffle";
    case Collective::ballot:
      return "a vote";
    case Collective::product:
      return "mma.sync";
  }
  return "";
}

const ProductFragments& fragments(const Warp& warp, unsigned lane) {
  return *from_word<const ProductFragments*>(warp.lanes[lane].value);
}

float factor(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// Element (row, k) of a, or (k, column) of b for `row` a column: of the lane and the word that hold
/// it. A pair's first element is in the lower half.
float element(const Warp& warp, bool of_a, unsigned row, unsigned k) {
  const bool pairs = fragments(warp, 0).pairs;
  const unsigned half = pairs ? k / 8 : k / 4;  // of the depth
  const unsigned lane = row % 8 * 4 + (pairs ? k % 8 / 2 : k % 4);
  const ProductFragments& own = fragments(warp, lane);
  const std::uint32_t word = of_a ? own.a[half * 2 + row / 8] : own.b[half];
  if (!pairs) return factor(word & 0xFFFFE000U);
  return factor(k % 2 == 0 ? word << 16 : word & 0xFFFF0000U);
}

void multiply(const Warp& warp, const Gathering& gathering) {
  if (gathering.arrived != 0xFFFFFFFFU) fail("mma.sync at {} without all lanes", gathering.site);
  const unsigned depth = fragments(warp, 0).pairs ? 16 : 8;
  float a[16][16], b[16][8];
  for (unsigned k = 0; k < depth; ++k) {
    for (unsigned i = 0; i < 16; ++i) a[i][k] = element(warp, true, i, k);
    for (unsigned j = 0; j < 8; ++j) b[k][j] = element(warp, false, j, k);
  }
  for (unsigned l = 0; l < 32; ++l) {
    for (unsigned e = 0; e < 4; ++e) {
      const unsigned row = l / 4 + e / 2 * 8, column = l % 4 * 2 + e % 2;
      float& d = fragments(warp, l).d[e];
      for (unsigned k = 0; k < depth; ++k) d += a[row][k] * b[k][column];
    }
  }
}

void finish(Warp& warp, const Gathering& gathering) {
  const unsigned here = gathering.arrived;
  if (gathering.kind == Collective::product) multiply(warp, gathering);
  std::uint64_t result[32];
  unsigned votes = 0;
  for (unsigned l = 0; l < 32; ++l) {
    if ((here >> l & 1U) != 0 && warp.lanes[l].value != 0) votes |= 1U << l;
  }
  for (unsigned l = 0; l < 32; ++l) {
    if ((here >> l & 1U) == 0) continue;
    const unsigned source = warp.lanes[l].source;
    const bool given = source < 32 && (here >> source & 1U) != 0;
    result[l] = gathering.kind == Collective::ballot ? votes
                : given                              ? warp.lanes[source].value
                                                     : kFreshWord;
  }
  for (unsigned l = 0; l < 32; ++l) {
    if ((here >> l & 1U) == 0) continue;
    warp.lanes[l].value = result[l];
    if (warp.lanes[l].state == Thread::State::waiting) wake(warp.lanes[l]);
  }
}

/// Ends the gathering if all of its lanes that have not ended have arrived.
bool finish_if_complete(Warp& warp, unsigned index) {
  Gathering& gathering = warp.gathering[index];
  if ((gathering.mask & warp.live & ~gathering.arrived) != 0) return false;
  finish(warp, gathering);
  gathering = warp.gathering[--warp.gatherings];
  return true;
}

/// Waits for the other lanes; returns the synchronisation object of this gathering.
std::uint64_t* gather(Collective kind, unsigned mask, Site at) {
  Thread& self = running();
  Warp& warp = *self.warp;
  const unsigned own = 1U << self.lane;
  if ((mask & own) == 0) {
    fail("{} is not in the mask {:#x} it gives {} at {}", self, mask, name(kind), at);
  }
  unsigned index = 0;
  while (index < warp.gatherings && warp.gathering[index].mask != mask) ++index;
  if (index == warp.gatherings) {
    warp.gathering[warp.gatherings++] = {
        .mask = mask, .arrived = 0, .order = warp.orders++ % kWarpOrders, .kind = kind, .site = at};
  }
  Gathering& gathering = warp.gathering[index];
  if (gathering.kind != kind || !same(gathering.site, at)) {
    fail("divergent warp: {} came to {} at {} while others wait for {} at {}", self, name(kind), at,
         name(gathering.kind), gathering.site);
  }
  std::uint64_t* const order = &warp.order[gathering.order];
  if (kind == Collective::syncwarp) release(order);
  gathering.arrived |= own;
  if (!finish_if_complete(warp, index)) wait_here(name(kind), at);
  return order;
}

}  // namespace

void leave_warp(Thread& thread) {
  Warp& warp = *thread.warp;
  warp.live &= ~(1U << thread.lane);
  for (unsigned i = 0; i < warp.gatherings;) {
    if (!finish_if_complete(warp, i)) ++i;
  }
}

unsigned lane() { return running().lane; }

void warp_barrier(unsigned mask, Site at) {
  running().value = 0;
  acquire(gather(Collective::syncwarp, mask, at));
}

std::uint64_t warp_shuffle(unsigned mask, std::uint64_t value, unsigned source, Site at) {
  Thread& self = running();
  self.value = value;
  self.source = source;
  gather(Collective::shuffle, mask, at);
  return self.value;
}

void warp_product(const ProductFragments& own, Site at) {
  Thread& self = running();
  self.value = to_word(&own);
  self.source = self.lane;
  gather(Collective::product, 0xFFFFFFFFU, at);
}

unsigned warp_ballot(unsigned mask, bool predicate, Site at) {
  Thread& self = running();
  self.value = predicate;
  gather(Collective::ballot, mask, at);
  return static_cast<unsigned>(self.value);
}

}  // namespace emulation
