#pragma once

#include "kernels/activation/functions.h"
#include "kernels/common/cpu_math.h"

namespace carousel::activation {

/// What functions.h asks of the CPU.
struct CpuMath {
  template <class R>
  static R sigmoid(R x) {
    return cpu_sigmoid(x);
  }
  template <class R>
  static R tanh(R x) {
    return cpu_tanh(x);
  }
  template <class R>
  static Erfc<R> erfc(R x) {
    return cpu_erfc(x);
  }
};

}  // namespace carousel::activation
