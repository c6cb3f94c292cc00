#include <fmt/format.h>

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
  }
  return "";
}

void finish(Warp& warp, const Gathering& gathering) {
  const unsigned here = gathering.arrived;
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

unsigned warp_ballot(unsigned mask, bool predicate, Site at) {
  Thread& self = running();
  self.value = predicate;
  gather(Collective::ballot, mask, at);
  return static_cast<unsigned>(self.value);
}

}  // namespace emulation
