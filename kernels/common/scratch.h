#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/check.h"
#include "kernels/common/memory.h"
#include "kernels/common/view.h"

namespace carousel {

/// The gaps between the arrays of an op's scratch memory. An access to a gap is an error while the
/// op runs. Only builds with AddressSanitizer have gaps.
#if defined(__SANITIZE_ADDRESS__)
class ScratchGaps {
 public:
  static constexpr std::size_t kLeast = 32;  ///< bytes after every array
  ScratchGaps() = default;
  ScratchGaps(const Device& device, View<std::byte, 1> memory) : device_(device), memory_(memory) {}
  ~ScratchGaps() {
    allow_access(device_, memory_.data, static_cast<std::size_t>(memory_.extent[0]));
  }
  ScratchGaps(const ScratchGaps&) = delete;
  ScratchGaps& operator=(const ScratchGaps&) = delete;
  void forbid(std::size_t first, std::size_t last) const {
    if (last > static_cast<std::size_t>(memory_.extent[0])) return;
    forbid_access(device_, memory_.data + first, last - first);
  }

 private:
  Device device_;
  View<std::byte, 1> memory_{};
};
#else
struct ScratchGaps {
  static constexpr std::size_t kLeast = 0;
  ScratchGaps() = default;
  ScratchGaps(const Device&, View<std::byte, 1>) {}
  void forbid(std::size_t, std::size_t) const {}
};
#endif

/// Cuts an op's scratch memory into arrays, one after the other. Without memory it only counts
/// bytes, so that one function gives both the size and the layout:
///
///     struct Parts { float* sums; std::int32_t* order; };
///     Parts lay_out(ScratchCutter& cut, …) {
///       return {cut.take<float>(n), cut.take<std::int32_t>(m)}; }
class ScratchCutter {
 public:
  /// Of every array, if the memory itself is so aligned.
  static constexpr std::size_t kAlignment = 256;

  ScratchCutter() = default;
  ScratchCutter(const Device& device, View<std::byte, 1> memory)
      : memory_(memory), gaps_(device, memory) {}

  /// Null if count is 0.
  template <class T>
  T* take(std::int64_t count) {
    if (count == 0) return nullptr;
    const std::size_t first = bytes_, end = first + static_cast<std::size_t>(count) * sizeof(T);
    bytes_ = (end + ScratchGaps::kLeast + kAlignment - 1) / kAlignment * kAlignment;
    if (!memory_.present()) return nullptr;
    gaps_.forbid(end, bytes_);
    return reinterpret_cast<T*>(memory_.data + first);
  }

  std::size_t bytes() const { return bytes_; }  ///< taken so far

  /// ShapeError "<what> is <bytes there>, expected at least <bytes taken>".
  void expect_enough(const char* what) const {
    expect_at_least(what, memory_.extent[0], static_cast<std::int64_t>(bytes_));
  }

 private:
  View<std::byte, 1> memory_{};
  ScratchGaps gaps_;
  std::size_t bytes_ = 0;
};

}  // namespace carousel
