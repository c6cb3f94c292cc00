#pragma once

// The part of NVTX that the project uses. Names of ranges can be recorded, for tests.
#include <string>
#include <vector>

int nvtxRangePushA(const char* name);
int nvtxRangePop();

namespace emulation {

/// Starts to record the ranges that this thread begins: "inner" within "outer" as "outer/inner".
void record_ranges();
std::vector<std::string> recorded_ranges();  ///< since then; ends the recording

}  // namespace emulation
