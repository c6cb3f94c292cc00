#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// PTX instructions without a name in CUDA C++: one thin function each, first for the GPU, then for
// the emulated device. The scope is the whole GPU unless the name says otherwise.

namespace carousel::ptx {

#ifdef __CUDACC__

/// Reads a flag. What its writer wrote before store_release() or add_release() is then visible.
__device__ inline std::uint32_t load_acquire(const std::uint32_t* flag) {
  std::uint32_t value;
  asm volatile("ld.acquire.gpu.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
__device__ inline std::uint32_t load_relaxed(const std::uint32_t* flag) {
  std::uint32_t value;
  asm volatile("ld.relaxed.gpu.u32 %0, [%1];" : "=r"(value) : "l"(flag) : "memory");
  return value;
}
__device__ inline void store_release(std::uint32_t* flag, std::uint32_t value) {
  asm volatile("st.release.gpu.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}
__device__ inline void add_release(std::uint32_t* flag, std::uint32_t value) {
  asm volatile("red.release.gpu.add.u32 [%0], %1;" ::"l"(flag), "r"(value) : "memory");
}

/// Starts to copy 16 aligned bytes from global to shared memory, or to write zeros if not `valid`.
/// This thread can read them once copies_wait() has returned.
__device__ inline void copy_async(void* shared, const void* global, bool valid = true) {
  const auto to = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
/// Ends a group: the copies started since the last group ended.
__device__ inline void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits for all groups but the kNewest that ended last.
template <int kNewest>
__device__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
}

/// d += a·b by a warp, where d is 16×8, a 16×8 and b 8×8 of tf32: float whose last 13 bits are cut off.
/// Lane 4g + t has of a the elements (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4), of b (t, g),
/// (t + 4, g), and of d (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
__device__ inline void multiply_tf32(float (&d)[4], const std::uint32_t (&a)[4],
                                     const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/// The same of bf16, for a 16×16 and b 16×8. A word has two neighbours along the depth, the first in
/// its lower half: of a the pairs from (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8) on, of b
/// those from (2t, g), (2t + 8, g) on.
__device__ inline void multiply_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                     const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Clusters exist from sm_90 on; none is launched on an older device.
#if __CUDA_ARCH__ >= 900

/// The block's index in its cluster.
__device__ inline unsigned cluster_rank() {
  unsigned rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
/// __syncthreads() for all threads of the cluster.
__device__ inline void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
}
/// The address in block `rank`'s shared memory that corresponds to `shared` in this block's.
template <class T>
__device__ T* in_cluster(T* shared, unsigned rank) {
  T* there;
  asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(shared), "r"(rank));
  return there;
}

#else

__device__ inline unsigned cluster_rank() { return 0; }
__device__ inline void cluster_sync() { __trap(); }
template <class T>
__device__ T* in_cluster(T*, unsigned) {
  return nullptr;
}

#endif
#else

using emulation::Site;

inline std::uint32_t load_acquire(const std::uint32_t* flag, Site at = Site::here()) {
  emulation::spin_point(at);
  return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}
inline std::uint32_t load_relaxed(const std::uint32_t* flag, Site at = Site::here()) {
  emulation::spin_point(at);
  return __atomic_load_n(flag, __ATOMIC_RELAXED);
}
inline void store_release(std::uint32_t* flag, std::uint32_t value) {
  emulation::progress();
  __atomic_store_n(flag, value, __ATOMIC_RELEASE);
}
inline void add_release(std::uint32_t* flag, std::uint32_t value) {
  emulation::progress();
  __atomic_fetch_add(flag, value, __ATOMIC_RELEASE);
}

inline void copy_async(void* shared, const void* global, bool valid = true) {
  emulation::copy_later(shared, valid ? global : nullptr);
}
inline void copies_commit() { emulation::commit_copies(); }
template <int kNewest>
void copies_wait() {
  emulation::wait_copies(kNewest);
}

inline void multiply_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                          Site at = Site::here()) {
  emulation::warp_product({.d = d, .a = a, .b = b, .pairs = false}, at);
}
inline void multiply_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                          Site at = Site::here()) {
  emulation::warp_product({.d = d, .a = a, .b = b, .pairs = true}, at);
}

inline unsigned cluster_rank() { return emulation::cluster_rank(); }
inline void cluster_sync(Site at = Site::here()) { emulation::cluster_barrier(at); }
template <class T>
T* in_cluster(T* shared, unsigned rank) {
  return static_cast<T*>(emulation::peer_shared_memory(shared, rank));
}

#endif

}  // namespace carousel::ptx
