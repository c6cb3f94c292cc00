#include "kernels/common/range.h"

#include <nvtx3/nvToolsExt.h>

namespace carousel {

Range::Range(const char* name) noexcept { nvtxRangePushA(name); }
Range::~Range() { nvtxRangePop(); }

}  // namespace carousel
