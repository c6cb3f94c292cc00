#include "engine/batches/batches.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "engine/batches/batch_plan.h"
#include "engine/batches/line_plan.h"
#include "engine/batches/packed_plan.h"
#include "engine/batches/prefetcher.h"
#include "engine/batches/stream_plan.h"
#include "kernels/common/check.h"
#include "kernels/common/fence.h"
#include "kernels/common/memory.h"
#include "kernels/copy/copy.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace carousel {
namespace {

static_assert(GatherWindows::kNoTarget == kIgnoreTarget, "a window's missing target has no loss");

// Batches in the ring, and how many copies of them to the device may be pending: the host runs
// ahead of the device by no more than that, and the thread always has a slot to fill.
constexpr std::int64_t kSlots = 8, kUnderway = 4;

/// The device's memory for batches of any T and B up to the limits.
class BatchMemory {
 public:
  BatchMemory(const Device& device, const BatchLimits& limits) : limits_(limits) {
    for (const FieldLimits& field : limits.fields) {
      Field& memory = fields_.emplace_back(
          Field{field.name, Tensor(device, {field.most(limits.rows)}, field.dtype)});
      if (field.lengths) memory.lengths = Tensor(device, {limits.rows}, DType::i32);
    }
    if (limits.reset_steps > 0) {
      reset_ = Tensor(device, {limits.reset_steps, limits.rows}, DType::i32);
    }
  }

  /// The batch of B rows, in which field i has steps(i) time steps and the reset, which batches of the
  /// largest B alone have, as many as field 0.
  template <class Steps>
  Batch batch(std::int64_t rows, Steps&& steps) const {
    Batch batch{.rows = rows, .fields = fields_, .reset = reset_};
    for (std::size_t i = 0; i < fields_.size(); ++i) {
      const Shape shape = limits_.fields[i].shape(steps(i), rows);
      Field& field = batch.fields[i];
      field.values = field.values.slice(0, shape.size()).reshaped(shape);
      if (field.lengths) field.lengths = field.lengths.slice(0, rows);
    }
    if (reset_) batch.reset = reset_.slice(0, steps(0));
    return batch;
  }

 private:
  BatchLimits limits_;
  std::vector<Field> fields_;  ///< flat
  Tensor reset_;
};

/// Pinned memory for several batches.
class HostMemory {
 public:
  HostMemory(const Device& device, const BatchLimits& limits, std::int64_t slots)
      : limits_(limits), bytes_(place(nullptr).second), pinned_(device, bytes_ * slots) {
    for (std::int64_t i = 0; i < slots; ++i) {
      batches_.push_back(place(static_cast<std::byte*>(pinned_.data()) + i * bytes_).first);
    }
  }
  const std::vector<HostBatch>& batches() const { return batches_; }

 private:
  // A batch whose memory begins at `room`, and its size.
  std::pair<HostBatch, std::size_t> place(std::byte* room) const {
    constexpr std::size_t kAlign = 16;
    std::size_t used = 0;
    const auto take = [&](std::int64_t count, DType dtype) -> void* {
      const std::size_t bytes = static_cast<std::size_t>(count) * bytes_per_element(dtype);
      const std::size_t at = std::exchange(used, used + (bytes + kAlign - 1) / kAlign * kAlign);
      return room == nullptr ? nullptr : room + at;
    };
    const auto take_ids = [&](std::int64_t count) {
      return static_cast<std::int32_t*>(take(count, DType::i32));
    };
    HostBatch batch{.fields = {}, .reset = {}, .rows = limits_.rows};
    for (const FieldLimits& field : limits_.fields) {
      HostField& host = batch.fields.emplace_back();
      host.values = take(field.most(limits_.rows), field.dtype);
      if (field.lengths) host.lengths = take_ids(limits_.rows);
    }
    if (limits_.reset_steps > 0) batch.reset.values = take_ids(limits_.reset_steps * limits_.rows);
    return {std::move(batch), used};
  }

  BatchLimits limits_;
  std::size_t bytes_;  ///< of a batch
  PinnedMemory pinned_;
  std::vector<HostBatch> batches_;
};

class PrefetchedSource final : public BatchSource {
 public:
  PrefetchedSource(const Device& device, std::unique_ptr<BatchPlan> plan)
      : device_(device),
        plan_(std::move(plan)),
        memory_(device, plan_->limits()),
        pinned_(device, plan_->limits(), kSlots),
        prefetcher_(*plan_, pinned_.batches()) {
    for (std::int64_t i = 0; i < kUnderway; ++i) fences_.emplace_back(device);
  }
  ~PrefetchedSource() override {
    try {
      drain();  // before the pinned memory goes
    } catch (const std::exception& error) {
      std::fprintf(stderr, "carousel: %s\n", error.what());  // which never throws
    }
  }

  Batch next() override {
    const HostBatch& host = prefetcher_.take(position_);
    Batch batch = memory_.batch(host.rows, [&](std::size_t i) { return host.fields[i].steps; });
    for (std::size_t i = 0; i < host.fields.size(); ++i) {
      const Field& field = batch.fields[i];
      copy_from_host(field.values, host.fields[i].values);
      if (field.lengths) copy_from_host(field.lengths, host.fields[i].lengths);
    }
    if (batch.reset) copy_from_host(batch.reset, host.reset.values);
    batch.first = plan_->is_first(position_.index);
    batch.counted = host.counted;
    batch.learning_rate_factor = host.learning_rate_factor;
    fences_[underway_++].record();
    if (underway_ == fences_.size()) await_oldest();
    position_ = after(position_, plan_->batches_in(position_.epoch));
    return batch;
  }

  DataPosition position() const override { return position_; }
  void seek(const DataPosition& position) override {
    expect_position(position, plan_->batches_in(position.epoch));
    drain();
    prefetcher_.stop();
    position_ = position;
  }
  std::int64_t batches_per_epoch() const override { return plan_->batches_in(position_.epoch); }
  std::int64_t counted_per_epoch() const override { return plan_->counted_per_epoch(); }

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
  HostMemory pinned_;
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
        windows_(layout, options),
        restarts_(options),
        stream_(device, {tokens.count}, DType::i32),
        start_(device, {layout.rows}, DType::i64),
        restart_(device, {layout.rows}, DType::i32),
        memory_(device, StreamPlan(tokens, layout, options).limits()) {
    constexpr std::int64_t kPiece = std::int64_t{1} << 20;
    std::vector<std::int32_t> piece(static_cast<std::size_t>(std::min(kPiece, tokens.count)));
    for (std::int64_t at = 0; at < tokens.count; at += kPiece) {
      const std::int64_t count = std::min(kPiece, tokens.count - at);
      tokens.read(at, count, piece.data());
      copy_from_host(stream_.slice(at, count), piece.data());
    }
  }

  Batch next() override {
    const StreamWindows::Window window = windows_.at(position_);
    std::vector<std::int64_t> starts(static_cast<std::size_t>(layout_.rows));
    std::vector<std::int32_t> restarts(starts.size());
    const std::int64_t skip = epoch_start(layout_, options_.seed, position_.epoch);
    for (std::int64_t row = 0; row < layout_.rows; ++row) {
      const auto b = static_cast<std::size_t>(row);
      starts[b] = skip + layout_.start(row) + window.begin;
      if (restarts_.drawing()) restarts[b] = restarts_.at(position_, layout_.first_row + row);
    }
    copy_from_host(start_, starts.data());  // small and not pinned: copied before this returns
    if (restarts_.drawing()) copy_from_host(restart_, restarts.data());
    Batch batch = memory_.batch(layout_.rows, [&](std::size_t) { return window.steps; });
    run(device_, GatherWindows{.stream = stream_.view<std::int32_t, 1>(),
                               .position = start_.view<std::int64_t, 1>(),
                               .restart = restarts_.drawing() ? restart_.view<std::int32_t, 1>()
                                                              : View<const std::int32_t, 1>{},
                               .document_end = options_.document_end,
                               .token = batch["token"].mutable_view<std::int32_t, 2>(),
                               .target = batch["target"].mutable_view<std::int32_t, 2>(),
                               .reset = batch.reset.mutable_view<std::int32_t, 2>()});
    batch.first = position_.index == 0;
    batch.counted = batch["target"].size();
    batch.learning_rate_factor = window.learning_rate_factor;
    position_ = after(position_, windows_.in(position_.epoch));
    return batch;
  }

  DataPosition position() const override { return position_; }
  void seek(const DataPosition& position) override {
    expect_position(position, windows_.in(position.epoch));
    position_ = position;
  }
  std::int64_t batches_per_epoch() const override { return windows_.in(position_.epoch); }
  std::int64_t counted_per_epoch() const override { return layout_.all_targets(); }

 private:
  Device device_;
  StreamLayout layout_;
  StreamOptions options_;
  StreamWindows windows_;
  RowRestarts restarts_;
  Tensor stream_;   ///< [N]
  Tensor start_;    ///< [B] where the windows of a batch begin
  Tensor restart_;  ///< [B] which rows begin anew there
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

Shape FieldLimits::shape(std::int64_t of_steps, std::int64_t rows) const {
  if (width > 0) return steps > 0 ? Shape{of_steps, rows, width} : Shape{rows, width};
  return steps > 0 ? Shape{of_steps, rows} : Shape{rows};
}

std::int64_t FieldLimits::most(std::int64_t rows) const {
  return places > 0 ? places * std::max<std::int64_t>(width, 1) : shape(rows).size();
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
  StreamOptions plain = options;
  plain.window_deviation = plain.window_halving = plain.reset_probability = 0;
  return prefetched(device,
                    std::make_unique<StreamPlan>(tokens, evaluation_layout(tokens, plain), plain));
}

std::unique_ptr<BatchSource> line_batches(const Device& device, const TokenRange& tokens,
                                          const LineOptions& options) {
  return prefetched(device, std::make_unique<LinePlan>(Lines{.tokens = tokens}, options));
}

std::unique_ptr<BatchSource> labelled_batches(const Device& device, const TokenRange& tokens,
                                              const std::optional<TokenRange>& labels,
                                              const LineOptions& options) {
  return prefetched(device,
                    std::make_unique<LinePlan>(
                        Lines{.tokens = tokens, .next_token = false, .labels = labels}, options));
}

std::unique_ptr<BatchSource> packed_batches(const Device& device, const TokenRange& tokens,
                                            const TokenRange& lengths,
                                            const PackedOptions& options) {
  return prefetched(device, std::make_unique<PackedPlan>(tokens, lengths, options));
}

}  // namespace carousel
