#pragma once

// As much of NVTX as the project uses: the names of ranges, written down for tests.
#include <string>
#include <vector>

int nvtxRangePushA(const char* name);
int nvtxRangePop();

namespace emulation {

/// What this thread begins from now on is written down: "inner" in "outer" as "outer/inner".
void record_ranges();
std::vector<std::string> recorded_ranges();  ///< until now; and no more

}  // namespace emulation
