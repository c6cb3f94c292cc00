#include "engine/data/batches.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/data/batch_plan.h"
#include "engine/data/line_plan.h"
#include "engine/data/prefetcher.h"
#include "engine/data/stream_plan.h"
#include "kernels/common/check.h"
#include "kernels/common/fence.h"
#include "kernels/common/memory.h"
#include "kernels/copy/copy.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace carousel {
namespace {

static_assert(GatherWindows::kNoTarget == kIgnoreTarget, "a window's missing target has no loss");

// Batches in the ring, and how many of them may be on their way to the device: the host runs
// ahead of the device by no more than that, and the thread always has a slot to fill.
constexpr std::int64_t kSlots = 8, kUnderway = 4;

/// The device's memory for batches of any T up to the limit.
class BatchMemory {
 public:
  BatchMemory(const Device& device, const BatchLimits& limits)
      : token_(device, {limits.steps, limits.rows}, DType::i32),
        target_(device, {limits.steps, limits.rows}, DType::i32) {
    if (limits.resets) reset_ = Tensor(device, {limits.steps, limits.rows}, DType::i32);
    if (limits.lengths) lengths_ = Tensor(device, {limits.rows}, DType::i32);
  }
  Batch batch(std::int64_t steps) const {
    return {.fields = {{"token", token_.slice(0, steps), lengths_},
                       {"target", target_.slice(0, steps), lengths_}},
            .reset = reset_ ? reset_.slice(0, steps) : Tensor{}};
  }

 private:
  Tensor token_, target_, reset_, lengths_;
};

/// Room in pinned memory for `slots` batches.
std::vector<HostBatch> host_batches(std::int32_t* room, const BatchLimits& limits,
                                    std::int64_t slots) {
  const std::int64_t size = limits.steps * limits.rows;
  std::vector<HostBatch> batches(static_cast<std::size_t>(slots));
  for (HostBatch& batch : batches) {
    const auto take = [&](std::int64_t count) { return std::exchange(room, room + count); };
    batch.token = take(size);
    batch.target = take(size);
    if (limits.resets) batch.reset = take(size);
    if (limits.lengths) batch.lengths = take(limits.rows);
  }
  return batches;
}

std::size_t host_bytes(const BatchLimits& limits, std::int64_t slots) {
  const std::int64_t grids = limits.resets ? 3 : 2;
  return static_cast<std::size_t>(slots * limits.rows * (grids * limits.steps + 1)) *
         sizeof(std::int32_t);
}

class PrefetchedSource final : public BatchSource {
 public:
  PrefetchedSource(const Device& device, std::unique_ptr<BatchPlan> plan)
      : device_(device),
        plan_(std::move(plan)),
        memory_(device, plan_->limits()),
        pinned_(device, host_bytes(plan_->limits(), kSlots)),
        prefetcher_(*plan_, host_batches(static_cast<std::int32_t*>(pinned_.data()),
                                         plan_->limits(), kSlots)) {
    for (std::int64_t i = 0; i < kUnderway; ++i) fences_.emplace_back(device);
  }
  ~PrefetchedSource() override {
    try {
      drain();  // before the pinned memory goes
    } catch (const std::exception& error) {
      fmt::print(stderr, "carousel: {}\n", error.what());
    }
  }

  Batch next() override {
    const HostBatch& host = prefetcher_.take(position_);
    Batch batch = memory_.batch(host.steps);
    copy_from_host(batch["token"], host.token);
    copy_from_host(batch["target"], host.target);
    if (batch.reset) copy_from_host(batch.reset, host.reset);
    if (const Tensor& lengths = batch.at("token").lengths) copy_from_host(lengths, host.lengths);
    batch.first = plan_->is_first(position_.index);
    batch.counted = host.tokens;
    fences_[underway_++].record();
    if (underway_ == fences_.size()) await_oldest();
    position_ = after(position_, plan_->batches_per_epoch());
    return batch;
  }

  DataPosition position() const override { return position_; }
  void seek(const DataPosition& position) override {
    expect_position(position, batches_per_epoch());
    drain();
    prefetcher_.stop();
    position_ = position;
  }
  std::int64_t batches_per_epoch() const override { return plan_->batches_per_epoch(); }
  std::int64_t tokens_per_epoch() const override { return plan_->tokens_per_epoch(); }

 private:
  void await_oldest() {
    fences_.front().wait();
    std::rotate(fences_.begin(), fences_.begin() + 1, fences_.end());
    --underway_;
    prefetcher_.give_back();
  }
  void drain() {
    while (underway_ > 0) await_oldest();
  }

  Device device_;
  std::unique_ptr<BatchPlan> plan_;
  BatchMemory memory_;
  PinnedMemory pinned_;
  std::vector<Fence> fences_;  ///< the first `underway_` are recorded, oldest first
  std::size_t underway_ = 0;
  DataPosition position_;
  Prefetcher prefetcher_;  ///< last, so that its thread ends before what it fills is gone
};

/// A stream that lives on the device.
class ResidentStream final : public BatchSource {
 public:
  ResidentStream(const Device& device, const TokenRange& tokens, const StreamLayout& layout,
                 const StreamOptions& options)
      : device_(device),
        layout_(layout),
        options_(options),
        stream_(device, {tokens.count}, DType::i32),
        start_(device, {layout.rows}, DType::i64),
        memory_(device, {.steps = layout.steps(0),
                         .rows = layout.rows,
                         .resets = options.document_end >= 0,
                         .lengths = false}) {
    constexpr std::int64_t kPiece = std::int64_t{1} << 20;
    std::vector<std::int32_t> piece(static_cast<std::size_t>(std::min(kPiece, tokens.count)));
    for (std::int64_t at = 0; at < tokens.count; at += kPiece) {
      const std::int64_t count = std::min(kPiece, tokens.count - at);
      tokens.read(at, count, piece.data());
      copy_from_host(stream_.slice(at, count), piece.data());
    }
  }

  Batch next() override {
    std::vector<std::int64_t> starts(static_cast<std::size_t>(layout_.rows));
    const std::int64_t skip = epoch_start(layout_, options_.seed, position_.epoch);
    for (std::int64_t row = 0; row < layout_.rows; ++row) {
      starts[static_cast<std::size_t>(row)] =
          skip + layout_.start(row) + position_.index * layout_.window;
    }
    copy_from_host(start_, starts.data());  // small and not pinned: copied before this returns
    Batch batch = memory_.batch(layout_.steps(position_.index));
    run(device_, GatherWindows{.stream = stream_.view<std::int32_t, 1>(),
                               .position = start_.view<std::int64_t, 1>(),
                               .document_end = options_.document_end,
                               .token = batch["token"].mutable_view<std::int32_t, 2>(),
                               .target = batch["target"].mutable_view<std::int32_t, 2>(),
                               .reset = batch.reset.mutable_view<std::int32_t, 2>()});
    batch.first = position_.index == 0;
    batch.counted = batch["target"].size();
    position_ = after(position_, layout_.windows());
    return batch;
  }

  DataPosition position() const override { return position_; }
  void seek(const DataPosition& position) override {
    expect_position(position, batches_per_epoch());
    position_ = position;
  }
  std::int64_t batches_per_epoch() const override { return layout_.windows(); }
  std::int64_t tokens_per_epoch() const override { return layout_.all_targets(); }

 private:
  Device device_;
  StreamLayout layout_;
  StreamOptions options_;
  Tensor stream_;  ///< [N]
  Tensor start_;   ///< [B] where the windows of a batch begin
  BatchMemory memory_;
  DataPosition position_;
};

}  // namespace

const Field* Batch::find(std::string_view name) const {
  const auto found = std::find_if(fields.begin(), fields.end(),
                                  [name](const Field& field) { return field.name == name; });
  return found == fields.end() ? nullptr : &*found;
}

const Field& Batch::at(std::string_view name) const {
  if (const Field* const field = find(name)) return *field;
  std::vector<std::string> names;
  for (const Field& field : fields) names.push_back(field.name);
  throw ConfigError(
      fmt::format("the batch has no field '{}'; it has {}", name, fmt::join(names, ", ")));
}

void expect_position(const DataPosition& position, std::int64_t batches_per_epoch) {
  if (position.epoch < 0 || position.index < 0 || position.index >= batches_per_epoch) {
    throw FormatError(
        fmt::format("data: position {} of epoch {} is not among the {} batches of an epoch",
                    position.index, position.epoch, batches_per_epoch));
  }
}

std::unique_ptr<BatchSource> prefetched(const Device& device, std::unique_ptr<BatchPlan> plan) {
  return std::make_unique<PrefetchedSource>(device, std::move(plan));
}

std::unique_ptr<BatchSource> stream_batches(const Device& device, const TokenRange& tokens,
                                            const StreamOptions& options) {
  const StreamLayout layout = training_layout(tokens, options);
  if (static_cast<std::size_t>(tokens.count) <= options.device_bytes / sizeof(std::int32_t)) {
    return std::make_unique<ResidentStream>(device, tokens, layout, options);
  }
  return prefetched(device, std::make_unique<StreamPlan>(tokens, layout, options));
}

std::unique_ptr<BatchSource> evaluation_batches(const Device& device, const TokenRange& tokens,
                                                const StreamOptions& options) {
  return prefetched(
      device, std::make_unique<StreamPlan>(tokens, evaluation_layout(tokens, options), options));
}

std::unique_ptr<BatchSource> line_batches(const Device& device, const TokenRange& tokens,
                                          const LineOptions& options) {
  return prefetched(device, std::make_unique<LinePlan>(tokens, options));
}

}  // namespace carousel
