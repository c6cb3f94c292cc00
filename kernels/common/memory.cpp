#include "kernels/common/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "kernels/common/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace carousel {
namespace {

constexpr std::size_t kAlignment = 256;

MemoryUse& cpu_use() {
  static MemoryUse use;
  return use;
}

void* allocate(const Cpu&, std::size_t bytes) {
  const std::size_t rounded =
      (std::max<std::size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  void* data = std::aligned_alloc(kAlignment, rounded);
  if (data == nullptr) {
    throw Error(fmt::format("memory: the system cannot provide {} bytes", bytes));
  }
  MemoryUse& use = cpu_use();
  use.current += bytes;
  use.peak = std::max(use.peak, use.current);
  ++use.allocations;
  return data;
}

void release(const Cpu&, void* data, std::size_t bytes) noexcept {
  cpu_use().current -= bytes;
  std::free(data);
}

}  // namespace

#if CAROUSEL_CUDA
// kernels/common/cuda/memory.cu
void* allocate(const Cuda& device, std::size_t bytes);
void release(const Cuda& device, void* data, std::size_t bytes) noexcept;
void* allocate_pinned(const Cuda& device, std::size_t bytes);
void release_pinned(const Cuda& device, void* data) noexcept;
void copy_to_device(const Cuda& device, void* to, const void* from, std::size_t bytes);
void copy_to_host(const Cuda& device, void* to, const void* from, std::size_t bytes);
void allow_access(const Cuda& device, void* data, std::size_t bytes);
void forbid_access(const Cuda& device, void* data, std::size_t bytes);
MemoryUse memory_use(const Cuda& device);
#endif

namespace {

void* allocate_pinned(const Cpu& cpu, std::size_t bytes) { return allocate(cpu, bytes); }
void release_pinned(const Cpu& cpu, void* data, std::size_t bytes) noexcept {
  release(cpu, data, bytes);
}
#if CAROUSEL_CUDA
void release_pinned(const Cuda& device, void* data, std::size_t) noexcept {
  carousel::release_pinned(device, data);
}
#endif
void copy(const Cpu&, void* to, const void* from, std::size_t bytes) {
  if (bytes != 0) std::memcpy(to, from, bytes);
}
void copy_to_device(const Cpu& cpu, void* to, const void* from, std::size_t bytes) {
  copy(cpu, to, from, bytes);
}
void copy_to_host(const Cpu& cpu, void* to, const void* from, std::size_t bytes) {
  copy(cpu, to, from, bytes);
}
void allow_access(const Cpu&, [[maybe_unused]] void* data, [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(data, bytes);
#endif
}
void forbid_access(const Cpu&, [[maybe_unused]] void* data, [[maybe_unused]] std::size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(data, bytes);
#endif
}
MemoryUse memory_use(const Cpu&) { return cpu_use(); }

}  // namespace

Memory::Memory(const Device& device, std::size_t bytes)
    : device_(device),
      data_(std::visit([&](const auto& d) { return allocate(d, bytes); }, device)),
      bytes_(bytes) {}

Memory::~Memory() {
  if (data_ != nullptr) std::visit([&](const auto& d) { release(d, data_, bytes_); }, device_);
}

Memory::Memory(Memory&& other) noexcept { *this = std::move(other); }

Memory& Memory::operator=(Memory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

PinnedMemory::PinnedMemory(const Device& device, std::size_t bytes)
    : device_(device),
      data_(std::visit([&](const auto& d) { return allocate_pinned(d, bytes); }, device)),
      bytes_(bytes) {}

PinnedMemory::~PinnedMemory() {
  if (data_ != nullptr)
    std::visit([&](const auto& d) { release_pinned(d, data_, bytes_); }, device_);
}

PinnedMemory::PinnedMemory(PinnedMemory&& other) noexcept { *this = std::move(other); }

PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void copy_to_device(const Device& device, void* to, const void* from, std::size_t bytes) {
  std::visit([&](const auto& d) { copy_to_device(d, to, from, bytes); }, device);
}
void copy_to_host(const Device& device, void* to, const void* from, std::size_t bytes) {
  std::visit([&](const auto& d) { copy_to_host(d, to, from, bytes); }, device);
}
void allow_access(const Device& device, void* data, std::size_t bytes) {
  std::visit([&](const auto& d) { allow_access(d, data, bytes); }, device);
}
void forbid_access(const Device& device, void* data, std::size_t bytes) {
  std::visit([&](const auto& d) { forbid_access(d, data, bytes); }, device);
}
MemoryUse memory_use(const Device& device) {
  return std::visit([](const auto& d) { return memory_use(d); }, device);
}

}  // namespace carousel
