#pragma once

#include <cstddef>
#include <string>

// The emulated device's memory: one region of address space. The host cannot access it except while
// a kernel or a copy runs. If the environment has CAROUSEL_EMULATION_COUNTERS, a process prints at
// its end the most bytes it held and the number of its allocations. With
// CAROUSEL_EMULATION_UNFILLED, fresh memory holds what was there before, as a GPU's does.

namespace emulation {

inline constexpr std::size_t kDeviceBytes = std::size_t{8} << 30;

/// Fresh memory, aligned to 256 bytes, or null if the device is full.
void* device_allocate(std::size_t bytes);

/// False if this is not the start of an allocation.
bool device_release(void* memory);

/// Whether an address lies in the region, and whether a range lies within one allocation.
bool is_device_memory(const void* memory);
bool is_allocated(const void* memory, std::size_t bytes);

/// Describes a write just outside an allocation since the last check; empty if there was none.
/// (AddressSanitizer reports such a write when it happens.)
std::string damage();

/// While one exists, the host can access device memory: all of it, or the pages of a range. They
/// nest, and the outermost one decides.
class DeviceAccess {
 public:
  DeviceAccess();
  DeviceAccess(const void* memory, std::size_t bytes);
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;

 private:
  char* first_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Fills with 0x7FF1, which is NaN in every floating-point type and implausible as an integer.
void fill_fresh(void* memory, std::size_t bytes);

}  // namespace emulation
