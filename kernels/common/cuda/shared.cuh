#pragma once

#include <cuda_runtime.h>

namespace carousel {

/// The block's dynamic shared memory as one struct per kernel. The launch asks for sizeof(S).
/// Kernels use this and not `__shared__`, because sanitizers can guard it on the emulated device.
template <class S>
__device__ S& dynamic_shared() {
#ifdef __CUDACC__
  extern __shared__ __align__(128) unsigned char carousel_shared_memory[];
  return *reinterpret_cast<S*>(carousel_shared_memory);
#else
  return *static_cast<S*>(emulation::shared_memory(sizeof(S)));
#endif
}

}  // namespace carousel
