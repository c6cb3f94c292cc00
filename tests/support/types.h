#pragma once

#include <gtest/gtest.h>

#include <type_traits>

#include "kernels/common/bf16.h"
#include "kernels/common/tolerance.h"
#include "tests/support/device.h"

namespace carousel::test {

/// f(device, std::type_identity<T>{}) for every device and each of float and bf16.
template <class F>
void on_all_devices_and_types(const F& f) {
  for (const Device& device : devices()) {
    SCOPED_TRACE(device_name(device));
    f(device, std::type_identity<float>{});
    f(device, std::type_identity<bf16>{});
  }
}

/// What an op promises for T.
template <class T>
const Tolerance& of(const Tolerances& tolerances) {
  return std::is_same_v<T, bf16> ? tolerances.bf16 : tolerances.f32;
}

}  // namespace carousel::test
