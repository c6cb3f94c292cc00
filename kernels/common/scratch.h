#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/common/check.h"
#include "kernels/common/view.h"

namespace carousel {

/// Takes arrays out of an op's scratch memory, one after the other. Over an absent view it only
/// counts, so that one function both says how much an op needs and lays it out:
///
///     struct Parts { float* sums; std::int32_t* order; };
///     Parts lay_out(ScratchCutter& cut, …) { return {cut.take<float>(n), cut.take<std::int32_t>(m)}; }
class ScratchCutter {
 public:
  static constexpr std::size_t kAlignment = 64;  ///< of every array, if the memory's start has it

  ScratchCutter() = default;
  explicit ScratchCutter(View<std::byte, 1> memory) : memory_(memory) {}

  template <class T>
  T* take(std::int64_t count) {
    const std::size_t first = bytes_;
    const std::size_t size = static_cast<std::size_t>(count) * sizeof(T);
    bytes_ += (size + kAlignment - 1) / kAlignment * kAlignment;
    return memory_.present() ? reinterpret_cast<T*>(memory_.data + first) : nullptr;
  }

  std::size_t bytes() const { return bytes_; }  ///< taken so far

  /// ShapeError "<what> is <bytes there>, expected at least <bytes taken>".
  void expect_enough(const char* what) const {
    expect_at_least(what, memory_.extent[0], static_cast<std::int64_t>(bytes_));
  }

 private:
  View<std::byte, 1> memory_{};
  std::size_t bytes_ = 0;
};

}  // namespace carousel
