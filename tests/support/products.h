#pragma once

#include <algorithm>
#include <vector>

#include "kernels/common/journal.h"

namespace carousel::test {

/// Whether a product among these entries and those below them ran in tf32. A tf32 product of small
/// extents may run in f32, which depends on the library and the GPU.
inline bool has_tf32(const std::vector<Journal::Entry>& entries) {
  return std::any_of(entries.begin(), entries.end(), [](const Journal::Entry& entry) {
    return has_tf32(entry.entries) || (entry.text.find(", tf32: ") != std::string::npos &&
                                       entry.text.find("refused: tf32") == std::string::npos);
  });
}

/// Calls `work`, and says whether one of its products ran in tf32.
template <class Work>
bool ran_in_tf32(const Work& work) {
  const Journal journal;
  work();
  return has_tf32(journal.entries());
}

}  // namespace carousel::test
