#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "engine/files/temporary_file.h"

namespace carousel {

/// A key of a few words, compared from the first word on.
template <std::size_t Words>
using Key = std::array<std::uint64_t, Words>;

/// Counts equal keys by sorting, in bounded memory: keys are sorted in memory and, when that is full,
/// written as a run of different keys with their counts; in the end the runs are merged.
///
/// Memory   `bytes` for keys or, while runs are merged, for their buffers, of at least 64 entries each.
template <std::size_t Words>
class KeyCounter {
 public:
  /// `expected` keys will be added, about: no more memory is taken. Runs are files in `scratch`.
  KeyCounter(std::size_t bytes, std::int64_t expected, std::filesystem::path scratch);

  void add(const Key<Words>& key) {
    if (keys_.size() == capacity_) write_run();
    keys_.push_back(key);
  }
  /// Calls `take` with each different key, in ascending order, and how often it was added, until it
  /// returns false. To be called once, at the end.
  using Take = std::function<bool(const Key<Words>& key, std::int64_t count)>;
  void drain(const Take& take);

  std::size_t runs() const { return runs_.size(); }  ///< that were written

 private:
  struct Entry {
    Key<Words> key;
    std::int64_t count;
  };
  struct Run {
    std::size_t begin = 0, end = 0;  ///< bytes of the file
  };
  class Reader;
  void count_in_memory(const Take& take);
  void write_run();
  void merge(const Take& take) const;

  std::size_t bytes_, capacity_;
  std::filesystem::path scratch_;
  std::vector<Key<Words>> keys_;
  std::optional<TemporaryFile> file_;
  std::vector<Run> runs_;
};

extern template class KeyCounter<1>;
extern template class KeyCounter<2>;
extern template class KeyCounter<3>;
extern template class KeyCounter<4>;

}  // namespace carousel
