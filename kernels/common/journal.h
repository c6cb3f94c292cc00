#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace carousel {

/// Listens, while it lives, to what the ops of its thread decide: which kernels and library
/// algorithms run, on what shapes, and why nothing faster does. Ranges (kernels/common/range.h) make
/// a tree of it. Costs nothing worth naming where nobody listens.
class Journal {
 public:
  struct Entry {
    std::string text;
    std::int64_t count = 1;           ///< how often this, all of it, came within the same range
    std::vector<Entry> entries = {};  ///< what came within it
    bool operator==(const Entry&) const = default;
  };

  Journal();  ///< this thread's from now on; std::logic_error if it has one
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// This thread's; null if it has none. Ask before a line is put together.
  static Journal* mine();

  void enter(const char* range);
  void leave();  ///< also of a range that was entered before the journal was made
  void note(std::string line);

  /// What was told so far, in the order of first appearance; of open ranges nothing yet.
  const std::vector<Entry>& entries() const { return open_.front().entries; }

 private:
  void add(Entry entry);
  std::vector<Entry> open_;  ///< the whole, then the ranges that are open now
};

/// A product as planners note it: "product [64, 32]·[128, 32]ᵀ + bias, f32".
struct ProductNote {
  const char* type = "";
  bool transpose_a = false, transpose_b = false, accumulate = false, bias = false;
  std::int64_t m = 0, n = 0, k = 0;
  std::string text() const;
};

}  // namespace carousel
