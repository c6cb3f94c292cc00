#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/emulation/language/types.h"

// Functions that the threads of a block or the lanes of a warp call together.

namespace emulation {

/// Waits for every thread of the block (or cluster); returns the number of true predicates.
unsigned block_barrier(Site at, bool predicate);
void cluster_barrier(Site at);

/// Waits for the lanes of `mask`. A shuffle gives `value` and returns the value of lane `source`, or
/// the pattern of fresh memory if that lane takes no part.
void warp_barrier(unsigned mask, Site at);
std::uint64_t warp_shuffle(unsigned mask, std::uint64_t value, unsigned source, Site at);
unsigned warp_ballot(unsigned mask, bool predicate, Site at);
unsigned lane();

/// What a lane has of a product d += a·b of its warp, mma.sync of m16n8k8 tf32 or, if `pairs`, of
/// m16n8k16 bf16. The layout is PTX's.
struct ProductFragments {
  float* d;
  const std::uint32_t *a, *b;
  bool pairs;
};
void warp_product(const ProductFragments& own, Site at);

/// A read that may poll for another thread's write. It lets other threads run. If all threads only
/// poll for long, the launch fails as stuck.
void spin_point(Site at);

/// A write that another thread may poll for.
void progress();

/// cp.async of 16 bytes (zeros if `from` is null); the end of a group; the wait for all groups but
/// the `newest` last ones.
void copy_later(void* to, const void* from);
void commit_copies();
void wait_copies(unsigned newest);

/// __threadfence(): what a thread did before its fence is ordered before what another thread does
/// after a later fence.
void fence();

template <class T>
std::uint64_t to_word(T value) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  return word;
}
template <class T>
T from_word(std::uint64_t word) {
  T value;
  std::memcpy(&value, &word, sizeof(T));
  return value;
}

/// The value of lane `source`, or the caller's own if `source` is outside [first, last].
template <class T>
T shuffle(unsigned mask, T value, int source, int first, int last, Site at) {
  if (source < first || source > last) source = static_cast<int>(lane());
  return from_word<T>(warp_shuffle(mask, to_word(value), static_cast<unsigned>(source), at));
}

}  // namespace emulation

inline void __syncthreads(emulation::Site at = emulation::Site::here()) {
  emulation::block_barrier(at, false);
}
inline int __syncthreads_count(int predicate, emulation::Site at = emulation::Site::here()) {
  return static_cast<int>(emulation::block_barrier(at, predicate != 0));
}
inline int __syncthreads_or(int predicate, emulation::Site at = emulation::Site::here()) {
  return emulation::block_barrier(at, predicate != 0) != 0;
}
inline int __syncthreads_and(int predicate, emulation::Site at = emulation::Site::here()) {
  return emulation::block_barrier(at, predicate == 0) == 0;
}
inline void __syncwarp(unsigned mask = 0xFFFFFFFFU, emulation::Site at = emulation::Site::here()) {
  emulation::warp_barrier(mask, at);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              emulation::Site at = emulation::Site::here()) {
  const int first = static_cast<int>(emulation::lane()) & ~(width - 1);
  return emulation::shuffle(mask, value, first + (source & (width - 1)), 0, 31, at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  emulation::Site at = emulation::Site::here()) {
  const auto own = static_cast<int>(emulation::lane());
  return emulation::shuffle(mask, value, own ^ lanes, 0, own | (width - 1), at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                   emulation::Site at = emulation::Site::here()) {
  const auto own = static_cast<int>(emulation::lane());
  return emulation::shuffle(mask, value, own + static_cast<int>(lanes), 0, own | (width - 1), at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                 emulation::Site at = emulation::Site::here()) {
  const auto own = static_cast<int>(emulation::lane());
  return emulation::shuffle(mask, value, own - static_cast<int>(lanes), own & ~(width - 1), 31, at);
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              emulation::Site at = emulation::Site::here()) {
  return emulation::warp_ballot(mask, predicate != 0, at);
}
inline int __any_sync(unsigned mask, int predicate, emulation::Site at = emulation::Site::here()) {
  return emulation::warp_ballot(mask, predicate != 0, at) != 0;
}
inline int __all_sync(unsigned mask, int predicate, emulation::Site at = emulation::Site::here()) {
  return emulation::warp_ballot(mask, predicate == 0, at) == 0;
}
inline void __threadfence() { emulation::fence(); }
