#include "kernels/common/journal.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace carousel {
namespace {

thread_local Journal* listening = nullptr;

std::string operand(std::int64_t rows, std::int64_t columns, bool transposed) {
  return transposed ? fmt::format("[{}, {}]ᵀ", columns, rows)
                    : fmt::format("[{}, {}]", rows, columns);
}

}  // namespace

Journal::Journal() : open_(1) {
  if (listening != nullptr) throw std::logic_error("a second journal on one thread");
  listening = this;
}

Journal::~Journal() { listening = nullptr; }

Journal* Journal::mine() { return listening; }

void Journal::enter(const char* range) { open_.push_back({.text = range}); }

void Journal::leave() {
  if (open_.size() == 1) return;
  Entry left = std::move(open_.back());
  open_.pop_back();
  add(std::move(left));
}

void Journal::note(std::string line) { add({.text = std::move(line)}); }

void Journal::add(Entry entry) {
  std::vector<Entry>& siblings = open_.back().entries;
  const auto equal = std::find_if(siblings.begin(), siblings.end(), [&](const Entry& earlier) {
    return earlier.text == entry.text && earlier.entries == entry.entries;
  });
  if (equal != siblings.end()) {
    ++equal->count;
  } else {
    siblings.push_back(std::move(entry));
  }
}

std::string ProductNote::text() const {
  return fmt::format("product {}·{}{}{}, {}", operand(m, k, transpose_a),
                     operand(k, n, transpose_b), accumulate ? " + C" : "", bias ? " + bias" : "",
                     type);
}

}  // namespace carousel
