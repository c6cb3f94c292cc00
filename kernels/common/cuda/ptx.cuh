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

inline unsigned cluster_rank() { return emulation::cluster_rank(); }
inline void cluster_sync(Site at = Site::here()) { emulation::cluster_barrier(at); }
template <class T>
T* in_cluster(T* shared, unsigned rank) {
  return static_cast<T*>(emulation::peer_shared_memory(shared, rank));
}

#endif

}  // namespace carousel::ptx
