#pragma once

#include <cuda_runtime.h>

#include "kernels/activation/functions.h"

namespace carousel::activation {

/// What functions.h asks of a GPU.
struct DeviceMath {
  template <class R>
  static constexpr R sigmoid(R x) {
    return 1.0F / (1.0F + expf(-x));
  }
  template <class R>
  static constexpr R tanh(R x) {
    return tanhf(x);
  }
  struct Erfc {
    float value, exp;
  };
  static constexpr Erfc erfc(float x) { return {erfcf(x), expf(-x * x)}; }
};

}  // namespace carousel::activation
