#include "models/ngram/key_counter.h"

#include <algorithm>
#include <queue>
#include <utility>

namespace carousel {
namespace {

constexpr std::size_t kLeastEntries = 64;  // of a buffer

}  // namespace

/// The entries of a run, in order, through a buffer.
template <std::size_t Words>
class KeyCounter<Words>::Reader {
 public:
  Reader(const TemporaryFile& file, Run run, std::size_t entries)
      : file_(&file), rest_(run), entries_(entries) {
    fill();
  }
  bool ended() const { return next_ == buffer_.size(); }
  const Entry& entry() const { return buffer_[next_]; }
  void advance() {
    if (++next_ == buffer_.size()) fill();
  }

 private:
  void fill() {
    buffer_.resize(std::min(entries_, (rest_.end - rest_.begin) / sizeof(Entry)));
    next_ = 0;
    file_->read(rest_.begin, buffer_.data(), buffer_.size() * sizeof(Entry));
    rest_.begin += buffer_.size() * sizeof(Entry);
  }
  const TemporaryFile* file_;
  Run rest_;
  std::size_t entries_, next_ = 0;
  std::vector<Entry> buffer_;
};

template <std::size_t Words>
KeyCounter<Words>::KeyCounter(std::size_t bytes, std::int64_t expected,
                              std::filesystem::path scratch)
    : bytes_(bytes),
      capacity_(std::max(bytes / sizeof(Key<Words>), kLeastEntries)),
      scratch_(std::move(scratch)) {
  // At once: a vector that grows holds its keys twice meanwhile.
  keys_.reserve(std::min(capacity_, static_cast<std::size_t>(std::max<std::int64_t>(expected, 0))));
}

template <std::size_t Words>
void KeyCounter<Words>::count_in_memory(const Take& take) {
  std::sort(keys_.begin(), keys_.end());
  for (auto first = keys_.begin(); first != keys_.end();) {
    const auto last =
        std::find_if(first, keys_.end(), [&](const Key<Words>& key) { return key != *first; });
    if (!take(*first, last - first)) break;
    first = last;
  }
  keys_.clear();
}

template <std::size_t Words>
void KeyCounter<Words>::write_run() {
  if (!file_) file_.emplace(scratch_);
  const std::size_t begin = file_->size();
  std::vector<Entry> entries;
  entries.reserve(kLeastEntries * kLeastEntries);
  const auto write = [&] {
    file_->append(entries.data(), entries.size() * sizeof(Entry));
    entries.clear();
  };
  count_in_memory([&](const Key<Words>& key, std::int64_t count) {
    entries.push_back({key, count});
    if (entries.size() == entries.capacity()) write();
    return true;
  });
  write();
  runs_.push_back({begin, file_->size()});
}

template <std::size_t Words>
void KeyCounter<Words>::merge(const Take& take) const {
  const std::size_t entries = std::max(bytes_ / (runs_.size() * sizeof(Entry)), kLeastEntries);
  std::vector<Reader> readers;
  readers.reserve(runs_.size());
  const auto later = [&](std::size_t a, std::size_t b) {
    return readers[a].entry().key > readers[b].entry().key;
  };
  std::priority_queue<std::size_t, std::vector<std::size_t>, decltype(later)> smallest(later);
  for (const Run& run : runs_) {
    readers.emplace_back(*file_, run, entries);
    smallest.push(readers.size() - 1);
  }
  Entry sum{};
  while (!smallest.empty()) {
    const std::size_t run = smallest.top();
    smallest.pop();
    Reader& reader = readers[run];
    if (sum.count > 0 && sum.key != reader.entry().key) {
      if (!take(sum.key, sum.count)) return;
      sum.count = 0;
    }
    sum = {reader.entry().key, sum.count + reader.entry().count};
    reader.advance();
    if (!reader.ended()) smallest.push(run);
  }
  if (sum.count > 0) take(sum.key, sum.count);
}

template <std::size_t Words>
void KeyCounter<Words>::drain(const Take& take) {
  if (runs_.empty()) return count_in_memory(take);
  if (!keys_.empty()) write_run();
  std::vector<Key<Words>>().swap(keys_);
  merge(take);
}

template class KeyCounter<1>;
template class KeyCounter<2>;
template class KeyCounter<3>;
template class KeyCounter<4>;

}  // namespace carousel
