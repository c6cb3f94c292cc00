#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/memory.h"

// Shared by the tests of the emulation. Their kernels are small and test one thing each.

namespace carousel::test {

inline const Cuda& device() {
  static const auto& only = *new Cuda();
  return only;
}

/// An array of 32-bit words on the device.
class Words {
 public:
  explicit Words(std::size_t count) : count_(count), memory_(device(), count * 4) {}
  explicit Words(const std::vector<unsigned>& values) : Words(values.size()) {
    copy_to_device(device(), memory_.data(), values.data(), count_ * 4);
  }
  unsigned* data() const { return static_cast<unsigned*>(memory_.data()); }
  std::vector<unsigned> read() const {
    std::vector<unsigned> values(count_);
    copy_to_host(device(), values.data(), memory_.data(), count_ * 4);
    return values;
  }

 private:
  std::size_t count_;
  Memory memory_;
};

template <class S>
struct Array256 {
  S value[256];
};

/// The device's failure in `work`, or "nothing". The device is reset afterwards.
template <class F>
std::string failure_of(const F& work) {
  try {
    work();
    device().synchronize();
  } catch (const CudaError& e) {
    emulation::reset();
    return e.what();
  }
  return "nothing";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
#else
inline constexpr bool kAddressSanitizer = false;
#endif
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif

}  // namespace carousel::test

#define EXPECT_CONTAINS(text, part) \
  EXPECT_TRUE(carousel::test::contains(text, part)) << "the text is: " << (text)
