#pragma once

#include <cuda_runtime.h>

#include "kernels/activation/functions.h"

namespace carousel::activation {

/// What functions.h asks of a GPU.
struct DeviceMath {
  template <class R>
  static constexpr R exp(R x) {
    return expf(x);
  }
  template <class R>
  static constexpr R sigmoid(R x) {
    return 1.0F / (1.0F + expf(-x));
  }
  template <class R>
  static constexpr R tanh(R x) {
    return tanhf(x);
  }
  template <class R>
  static constexpr R erfc(R x) {
    return erfcf(x);
  }
};

}  // namespace carousel::activation
