#include <utility>

#include "tests/emulation/include/nvtx3/nvToolsExt.h"

namespace {

struct Ranges {
  bool recording = false;
  std::vector<std::string> begun;
  std::vector<std::string> open;  // each with the names of the ranges around it
};
thread_local Ranges ranges;

}  // namespace

int nvtxRangePushA(const char* name) {
  ranges.open.push_back(ranges.open.empty() ? name : ranges.open.back() + "/" + name);
  if (ranges.recording) ranges.begun.push_back(ranges.open.back());
  return static_cast<int>(ranges.open.size()) - 1;
}

int nvtxRangePop() {
  ranges.open.pop_back();
  return static_cast<int>(ranges.open.size());
}

namespace emulation {

void record_ranges() { ranges.recording = true; }

std::vector<std::string> recorded_ranges() {
  ranges.recording = false;
  return std::exchange(ranges.begun, {});
}

}  // namespace emulation
