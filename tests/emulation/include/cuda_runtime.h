#pragma once

// A .cu file that is compiled as C++ gets this file from `#include <cuda_runtime.h>`: the part of
// CUDA that the project uses, under CUDA's names.
#include "tests/emulation/language/intrinsics.h"
#include "tests/emulation/language/types.h"
#include "tests/emulation/runtime/runtime.h"
