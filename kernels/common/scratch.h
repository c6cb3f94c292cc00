#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/check.h"
#include "kernels/common/memory.h"
#include "kernels/common/view.h"

namespace carousel {

/// Takes arrays out of an op's scratch memory, one after the other. Without memory it only counts,
/// so that one function both says how much an op needs and lays it out:
///
///     struct Parts { float* sums; std::int32_t* order; };
///     Parts lay_out(ScratchCutter& cut, …) { return {cut.take<float>(n), cut.take<std::int32_t>(m)}; }
///
/// While it lives, the address checker sees what an op writes between its arrays.
class ScratchCutter {
 public:
  static constexpr std::size_t kAlignment = 256;  ///< of every array, if the memory's start has it

  ScratchCutter() = default;
  ScratchCutter(const Device& device, View<std::byte, 1> memory)
      : device_(device), memory_(memory) {}
  ~ScratchCutter() {
    if (kGap != 0 && memory_.present()) {
      allow_access(device_, memory_.data, static_cast<std::size_t>(memory_.extent[0]));
    }
  }
  ScratchCutter(const ScratchCutter&) = delete;
  ScratchCutter& operator=(const ScratchCutter&) = delete;

  /// Null if count is 0.
  template <class T>
  T* take(std::int64_t count) {
    if (count == 0) return nullptr;
    const std::size_t first = bytes_, end = first + static_cast<std::size_t>(count) * sizeof(T);
    bytes_ = (end + kGap + kAlignment - 1) / kAlignment * kAlignment;
    if (!memory_.present()) return nullptr;
    if (kGap != 0 && static_cast<std::int64_t>(bytes_) <= memory_.extent[0]) {
      forbid_access(device_, memory_.data + end, bytes_ - end);
    }
    return reinterpret_cast<T*>(memory_.data + first);
  }

  std::size_t bytes() const { return bytes_; }  ///< taken so far

  /// ShapeError "<what> is <bytes there>, expected at least <bytes taken>".
  void expect_enough(const char* what) const {
    expect_at_least(what, memory_.extent[0], static_cast<std::int64_t>(bytes_));
  }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr std::size_t kGap = 32;  // at least this after every array
#else
  static constexpr std::size_t kGap = 0;
#endif
  Device device_;
  View<std::byte, 1> memory_{};
  std::size_t bytes_ = 0;
};

}  // namespace carousel
