#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace carousel {

/// Records what the ops of its thread decide during its lifetime: which kernels and library
/// algorithms run, for which shapes, and why a faster one was refused. Ranges
/// (kernels/common/range.h) make the record a tree. A thread without a journal pays one test per
/// op.
class Journal {
 public:
  struct Entry {
    std::string text;
    std::int64_t count = 1;           ///< of equal entries in the same range
    std::vector<Entry> entries = {};  ///< recorded inside this range
    bool operator==(const Entry&) const = default;
  };

  Journal();  ///< becomes its thread's journal; std::logic_error if there is one
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// This thread's journal, or null. Test it before a line is formatted.
  static Journal* mine();

  void enter(const char* range);
  void leave();  ///< ignored for a range that was entered before the journal was made
  void note(std::string line);

  /// The record so far, in the order of first appearance, without the ranges that are still open.
  const std::vector<Entry>& entries() const { return open_.front().entries; }

 private:
  void add(Entry entry);
  std::vector<Entry> open_;  ///< the root, then the open ranges, innermost last
};

/// A product as a line of the journal: "product [64, 32]·[128, 32]ᵀ + bias, f32".
struct ProductNote {
  const char* type = "";
  bool transpose_a = false, transpose_b = false, accumulate = false, bias = false;
  std::int64_t m = 0, n = 0, k = 0;
  std::string text() const;
};

}  // namespace carousel
