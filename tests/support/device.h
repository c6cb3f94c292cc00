#pragma once

#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/common/device.h"

namespace carousel::test {

/// The CUDA device of this build, real or emulated, or null where there is none.
const Device* cuda_device();

/// Whether cuda_device() is a GPU.
bool has_gpu();

/// Every device of this build: the CPU and, where there is one, CUDA.
const std::vector<Device>& devices();

/// The devices that have ops of T: the CPU alone for double.
template <class T>
std::vector<Device> devices_of() {
  return std::is_same_v<T, double> ? std::vector<Device>{Cpu{}} : devices();
}

/// "cpu" or "cuda": for names of parameterised tests.
std::string device_name(const Device& device);

}  // namespace carousel::test

/// What GoogleTest prints for a Device: "cuda". A PrintTo() is not enough, because GoogleTest prints
/// every std::variant in its own way, with addresses.
template <>
class testing::internal::UniversalPrinter<carousel::Device> {
 public:
  static void Print(const carousel::Device& device, std::ostream* out) {
    *out << carousel::test::device_name(device);
  }
};

#define CAROUSEL_SKIP_WITHOUT_CUDA() \
  if (carousel::test::cuda_device() == nullptr) GTEST_SKIP() << "no CUDA device"
