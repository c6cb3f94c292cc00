#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine/batches/batches.h"

namespace carousel::test {

/// Windows without end of a text that repeats itself: token n of row b is (n + 5b)² mod 17. The
/// first window carries no state.
class Windows final : public BatchSource {
 public:
  static constexpr std::int64_t kVocabulary = 17;

  /// Windows of `lengths` time steps in turn, of `rows` rows.
  Windows(const Device& device, std::int64_t rows, const std::vector<std::int64_t>& lengths)
      : rows_(rows) {
    for (const std::int64_t steps : lengths) {
      Batch& batch = batches_.emplace_back();
      batch.rows = rows;
      batch.fields = {{"token", Tensor(device, {steps, rows}, DType::i32)},
                      {"target", Tensor(device, {steps, rows}, DType::i32)}};
      batch.counted = steps * rows;
    }
  }
  Batch next() override {
    const Batch& batch = batches_[static_cast<std::size_t>(index_) % batches_.size()];
    std::vector<std::int32_t> token, target;
    const std::int64_t end = begin_ + batch["token"].shape()[0];
    for (; begin_ < end; ++begin_) {
      for (std::int64_t b = 0; b < rows_; ++b) {
        const auto text = [&](std::int64_t n) {
          return static_cast<std::int32_t>((n + 5 * b) * (n + 5 * b) % kVocabulary);
        };
        token.push_back(text(begin_));
        target.push_back(text(begin_ + 1));
      }
    }
    copy_from_host(batch["token"], token.data());
    copy_from_host(batch["target"], target.data());
    Batch result = batch;
    result.first = index_++ == 0;
    return result;
  }
  DataPosition position() const override { return {.epoch = 0, .index = index_}; }
  void seek(const DataPosition& position) override {
    begin_ = 0;
    for (index_ = 0; index_ < position.index; ++index_) {
      begin_ += batches_[static_cast<std::size_t>(index_) % batches_.size()]["token"].shape()[0];
    }
  }
  std::int64_t batches_per_epoch() const override { return std::int64_t{1} << 40; }
  std::int64_t counted_per_epoch() const override {
    return batches_per_epoch() * batches_.front().counted;
  }

 private:
  std::int64_t rows_;
  std::vector<Batch> batches_;  ///< one of each length
  std::int64_t index_ = 0, begin_ = 0;
};

}  // namespace carousel::test
