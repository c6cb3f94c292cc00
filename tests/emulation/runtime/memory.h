#pragma once

#include <cstddef>
#include <string>

// The emulated device's memory: one region of address space, of which the host may touch nothing
// while no kernel or copy runs. With CAROUSEL_EMULATION_COUNTERS in the environment, a process
// says at its end how many bytes it held at most and how many allocations it made.

namespace emulation {

inline constexpr std::size_t kDeviceBytes = std::size_t{8} << 30;

/// Fresh memory, aligned to 256 bytes, or null if the device has no more.
void* device_allocate(std::size_t bytes);

/// False if this is not the start of an allocation.
bool device_release(void* memory);

/// Whether an address lies in the region, and whether a range lies within one allocation.
bool is_device_memory(const void* memory);
bool is_allocated(const void* memory, std::size_t bytes);

/// What was written just outside allocations since the last check, or nothing. (AddressSanitizer
/// finds such writes as they happen.)
std::string damage();

/// While one exists, device memory can be touched: the whole of it, or the pages of a range. They
/// nest; the outermost counts.
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

/// Fills with 0x7FF1, which is NaN in every floating-point type and absurd as an integer.
void fill_fresh(void* memory, std::size_t bytes);

}  // namespace emulation
