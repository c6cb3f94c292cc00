#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <stdexcept>
#include <vector>

#include "tests/emulation/language/sanitizer.h"
#include "tests/emulation/runtime/memory.h"
#include "tests/emulation/runtime/stream.h"

// CUDA's memory: allocation and copies. An asynchronous copy happens as late as CUDA allows.

namespace emulation {
namespace {

/// What CUDA's pool would do: it grows to what is allocated in the order of a stream, and at a wait
/// gives back what is free beyond its threshold. (device_allocate() reuses memory in its own way.)
struct Pool {
  std::uint64_t threshold = 0, reserved = 0, used = 0;
  std::map<void*, std::size_t> live;
};
Pool& pool() {
  static auto& only = *new Pool;
  return only;
}

std::map<const char*, std::size_t>& pinned() {
  static auto& all = *new std::map<const char*, std::size_t>;
  return all;
}

bool is_pinned(const void* memory, std::size_t bytes) {
  const auto* address = static_cast<const char*>(memory);
  auto after = pinned().upper_bound(address);
  if (after == pinned().begin()) return false;
  const auto& [block, size] = *--after;
  return address + bytes <= block + size;
}

/// The FNV hash (Fowler, Noll, Vo), over words of 8 bytes and then over the bytes that are left.
std::uint64_t checksum(const void* memory, std::size_t bytes) {
  const auto* from = static_cast<const unsigned char*>(memory);
  std::uint64_t hash = 0xCBF29CE484222325U;
  std::size_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, from + i, 8);
    hash = (hash ^ word) * 0x100000001B3U;
    hash ^= hash >> 29;
  }
  for (; i < bytes; ++i) hash = (hash ^ from[i]) * 0x100000001B3U;
  return hash;
}

Request copy_within_device(void* to, const void* from, std::size_t bytes) {
  const auto work = [=] { std::memmove(to, from, bytes); };
  return [work] { return work; };
}

/// The source is read when the copy runs. An error if it has changed since the copy was queued.
Request copy_from_pinned(void* to, const void* from, std::size_t bytes) {
  return [=]() -> Work {
    const std::uint64_t queued = checksum(from, bytes);
    return [=] {
      if (checksum(from, bytes) != queued) {
        throw std::runtime_error("host buffer reused before its asynchronous copy to the device");
      }
      std::memcpy(to, from, bytes);
    };
  };
}

Request copy_from_pageable(void* to, const void* from, std::size_t bytes) {
  const auto* first = static_cast<const char*>(from);
  const auto snapshot = std::make_shared<std::vector<char>>(first, first + bytes);
  const auto work = [=] { std::memcpy(to, snapshot->data(), bytes); };
  return [work] { return work; };
}

/// Until the copy runs, its destination is poisoned and holds the pattern of fresh memory.
Request copy_to_host(void* to, const void* from, std::size_t bytes) {
  return [=]() -> Work {
    fill_fresh(to, bytes);
    poison(to, bytes);
    const std::shared_ptr<void> pending(to, [bytes](void* host) { unpoison(host, bytes); });
    return [=] {
      unpoison(to, bytes);
      std::memcpy(to, from, bytes);
      (void)pending;
    };
  };
}

}  // namespace

void trim_pool() {
  Pool& p = pool();
  p.reserved = std::min(p.reserved, std::max(p.used, p.threshold));
}

void forbid_access(cudaStream_t stream, void* memory, std::size_t bytes) {
  enqueue(stream, [=] {
    unpoison(memory, bytes);
    fill_fresh(memory, bytes);
    poison(memory, bytes);
  });
}

void allow_access(cudaStream_t stream, void* memory, std::size_t bytes) {
  enqueue(stream, [=] { unpoison(memory, bytes); });
}

}  // namespace emulation

using emulation::find_stream;
using emulation::runtime_mutex;
using emulation::status;

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  const std::lock_guard lock(runtime_mutex());
  if (status() != cudaSuccess) return status();
  *memory = emulation::device_allocate(bytes);
  return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  const std::lock_guard lock(runtime_mutex());
  if (memory == nullptr) return status();
  emulation::drain_all();
  return emulation::device_release(memory) ? status() : cudaErrorInvalidValue;
}

cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t handle) {
  const std::lock_guard lock(runtime_mutex());
  const auto stream = find_stream(handle);
  if (stream->recording) return emulation::lose_capture(*stream);
  const cudaError_t error = cudaMalloc(memory, bytes);
  if (error != cudaSuccess) return error;
  emulation::Pool& pool = emulation::pool();
  pool.live[*memory] = bytes;
  pool.used += bytes;
  pool.reserved = std::max(pool.reserved, pool.used);
  return error;
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t handle) {
  const std::lock_guard lock(runtime_mutex());
  const auto stream = find_stream(handle);
  if (stream->recording) return emulation::lose_capture(*stream);
  if (memory == nullptr) return status();
  if (!emulation::is_allocated(memory, 1)) return cudaErrorInvalidValue;
  const auto work = [memory] {
    if (!emulation::device_release(memory)) throw std::runtime_error("device memory freed twice");
    emulation::Pool& pool = emulation::pool();
    const auto found = pool.live.find(memory);
    if (found == pool.live.end()) return;  // of cudaMalloc
    pool.used -= found->second;
    pool.live.erase(found);
  };
  submit(*stream, [work] { return work; });
  return status();
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int) {
  *pool = nullptr;  // the only one
  return status();
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
  const std::lock_guard lock(runtime_mutex());
  if (attribute != cudaMemPoolAttrReleaseThreshold) return cudaErrorInvalidValue;
  emulation::pool().threshold = *static_cast<std::uint64_t*>(value);
  return status();
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
  const std::lock_guard lock(runtime_mutex());
  *static_cast<std::uint64_t*>(value) = attribute == cudaMemPoolAttrReleaseThreshold
                                            ? emulation::pool().threshold
                                            : emulation::pool().reserved;
  return status();
}

cudaError_t cudaMallocHost(void** memory, std::size_t bytes) {
  const std::lock_guard lock(runtime_mutex());
  *memory = std::aligned_alloc(4096, (std::max<std::size_t>(bytes, 1) + 4095) / 4096 * 4096);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  emulation::pinned().emplace(static_cast<char*>(*memory), bytes);
  return status();
}

cudaError_t cudaFreeHost(void* memory) {
  const std::lock_guard lock(runtime_mutex());
  emulation::drain_all();
  if (emulation::pinned().erase(static_cast<char*>(memory)) == 0) return cudaErrorInvalidValue;
  std::free(memory);
  return status();
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t handle) {
  const std::lock_guard lock(runtime_mutex());
  const auto stream = find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (bytes == 0) return status();
  const bool to_device = emulation::is_device_memory(to);
  const bool from_device = emulation::is_device_memory(from);
  const bool wants_to = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool wants_from = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind != cudaMemcpyDefault && (wants_to != to_device || wants_from != from_device)) {
    return cudaErrorInvalidValue;
  }
  if (!to_device && !from_device) return cudaErrorInvalidValue;
  if (to_device && !emulation::is_allocated(to, bytes)) return cudaErrorInvalidValue;
  if (from_device && !emulation::is_allocated(from, bytes)) return cudaErrorInvalidValue;

  if (to_device && from_device) {
    submit(*stream, emulation::copy_within_device(to, from, bytes));
    return status();
  }
  const bool lazy = emulation::is_pinned(to_device ? from : to, bytes);
  if (!lazy && stream->recording) return emulation::lose_capture(*stream);
  if (to_device) {
    submit(*stream, lazy ? emulation::copy_from_pinned(to, from, bytes)
                         : emulation::copy_from_pageable(to, from, bytes));
    return status();
  }
  submit(*stream, emulation::copy_to_host(to, from, bytes));
  if (!lazy) drain(*stream, stream->last());  // as CUDA does for pageable memory
  return status();
}

cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t handle) {
  const std::lock_guard lock(runtime_mutex());
  const auto stream = find_stream(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (bytes == 0) return status();
  if (!emulation::is_allocated(to, bytes)) return cudaErrorInvalidValue;
  const auto work = [=] { std::memset(to, value, bytes); };
  submit(*stream, [work] { return work; });
  return status();
}
