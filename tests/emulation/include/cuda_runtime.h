#pragma once

// What `#include <cuda_runtime.h>` finds in a .cu file compiled as C++: as much of CUDA as the
// project's kernels use, under CUDA's names.
#include "tests/emulation/language/intrinsics.h"
#include "tests/emulation/language/types.h"
#include "tests/emulation/runtime/runtime.h"
