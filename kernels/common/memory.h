#pragma once

#include <cstddef>

#include "kernels/common/device.h"

namespace carousel {

/// Memory on a device, aligned to 256 bytes, contents unspecified. A size of zero is allowed and
/// gives a valid, unique address. The only owner of device memory in the project.
class Memory {
 public:
  Memory() = default;
  Memory(const Device& device, std::size_t bytes);
  ~Memory();
  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&& other) noexcept;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  Device device_;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Host memory that a device can copy from and to asynchronously (page-locked for CUDA).
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(const Device& device, std::size_t bytes);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& other) noexcept;
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  Device device_;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Queues a copy from host memory. Pinned: the source must stay unchanged until the device has
/// passed this point of its stream; pageable: it may be reused at once. On the CPU it copies at
/// once. CudaError while a graph is captured, as for allocating: kernels/common/graph.h.
void copy_to_device(const Device& device, void* to, const void* from, std::size_t bytes);

/// Copies to host memory and waits for it: one of the few places where the host waits.
void copy_to_host(const Device& device, void* to, const void* from, std::size_t bytes);

/// Tells the address checker (ASan, on the CPU and the emulated device) that [data, data + bytes)
/// may, or may not, be accessed. Does nothing in other builds. For arenas.
void allow_access(const Device& device, void* data, std::size_t bytes);
void forbid_access(const Device& device, void* data, std::size_t bytes);

/// Bytes of device memory that this process holds now, and the most it has held.
struct MemoryUse {
  std::size_t current = 0, peak = 0, allocations = 0;
};
MemoryUse memory_use(const Device& device);

}  // namespace carousel
