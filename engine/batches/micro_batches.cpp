#include "engine/batches/micro_batches.h"

#include <utility>

namespace carousel {
namespace {

class InTurn final : public BatchSource {
 public:
  explicit InTurn(std::vector<std::unique_ptr<BatchSource>> sources)
      : sources_(std::move(sources)) {}

  Batch next() override {
    BatchSource& source = *sources_[turn_];
    turn_ = (turn_ + 1) % sources_.size();
    return source.next();
  }
  DataPosition position() const override { return sources_[turn_]->position(); }
  void seek(const DataPosition& position) override {
    for (const auto& source : sources_) source->seek(position);
    turn_ = 0;
  }
  std::int64_t batches_per_epoch() const override { return sources_[turn_]->batches_per_epoch(); }
  std::int64_t counted_per_epoch() const override { return sources_[turn_]->counted_per_epoch(); }

 private:
  std::vector<std::unique_ptr<BatchSource>> sources_;
  std::size_t turn_ = 0;
};

}  // namespace

std::unique_ptr<BatchSource> in_turn(std::vector<std::unique_ptr<BatchSource>> sources) {
  return std::make_unique<InTurn>(std::move(sources));
}

}  // namespace carousel
