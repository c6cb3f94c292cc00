#include "engine/model/metric.h"

#include <algorithm>
#include <cstddef>

#include "engine/model/sampling.h"
#include "kernels/common/check.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace carousel {

Tensor Gathered::room(std::int64_t count) {
  constexpr std::int64_t kBlock = 4096;
  if (blocks_.empty() || blocks_.back().used + count > blocks_.back().memory.size()) {
    blocks_.push_back({.memory = Tensor(device_, {std::max(count, kBlock)}, dtype_)});
  }
  Block& block = blocks_.back();
  const Tensor room = block.memory.slice(block.used, count);
  block.used += count;
  count_ += count;
  return room;
}

void Gathered::read(void* to) const {
  auto* at = static_cast<std::byte*>(to);
  for (const Block& block : blocks_) {
    const Tensor used = block.memory.slice(0, block.used);
    copy_to_host(used, at);
    at += used.bytes();
  }
}

void MeanLoss::add(const Batch& batch, const Objective& objective) {
  const bool is_first = terms_.empty();
  for (std::size_t i = 0; i < objective.terms.size(); ++i) {
    const LossTerm& term = objective.terms[i];
    const Tensor& mean = term.loss.mean.value();
    if (is_first) terms_.push_back({term.name, term.weight, {mean.device(), mean.dtype()}});
    terms_[i].means.add(mean);
  }
  if (weight_ == Weight::batch) {
    counted_.push_back(batch.counted);
    return;
  }
  const Tensor& count = objective.terms.front().loss.count;
  if (is_first) own_counts_.emplace(count.device(), count.dtype());
  own_counts_->add(count);
}

std::vector<Score> MeanLoss::scores() const {
  std::vector<Score> scores{decisive()};
  std::vector<std::int64_t> counted = counted_;
  if (own_counts_) {
    const auto own = own_counts_->values<std::int32_t>();
    counted.assign(own.begin(), own.end());
  }
  for (const Term& term : terms_) {
    const std::vector<float> means = term.means.values<float>();
    double sum = 0, all = 0;
    for (std::size_t i = 0; i < means.size(); ++i) {
      // A batch in which nothing counts has no mean.
      if (counted[i] == 0) continue;
      const auto count = static_cast<double>(counted[i]);
      sum += static_cast<double>(means[i]) * count;
      all += count;
    }
    scores.front().value += static_cast<double>(term.weight) * (sum / all);
    if (terms_.size() > 1) scores.push_back({term.name, sum / all, unit_});
  }
  return scores;
}

void TokenAccuracy::add(const Batch& batch, const Objective& objective) {
  if (!objective.choices) {
    throw ConfigError("token accuracy: a model of this kind does not tell its likeliest tokens");
  }
  const Tensor& target = batch["target"];
  if (!target_) {
    target_.emplace(target.device(), DType::i32);
    chosen_.emplace(target.device(), DType::i32);
  }
  target_->add(target);
  chosen_->add(objective.choices);
}

std::vector<Score> TokenAccuracy::scores() const {
  std::int64_t counted = 0, right = 0;
  const auto target = target_ ? target_->values<std::int32_t>() : std::vector<std::int32_t>();
  const auto chosen = chosen_ ? chosen_->values<std::int32_t>() : std::vector<std::int32_t>();
  for (std::size_t i = 0; i < target.size(); ++i) {
    if (target[i] == kIgnoreTarget) continue;
    ++counted;
    right += chosen[i] == target[i] ? 1 : 0;
  }
  return {{decisive().name, static_cast<double>(right) / static_cast<double>(counted)}};
}

Classification::Classification(const Vocabulary& labels) {
  for (std::int32_t id = 0; id < labels.size(); ++id) labels_.push_back(labels.token(id));
}

void Classification::add(const Batch& batch, const Objective& objective) {
  const Tensor &truth = batch["label"], &logits = objective.prediction;
  if (!truth_) {
    truth_.emplace(truth.device(), DType::i32);
    predicted_.emplace(truth.device(), DType::i32);
  }
  choose_tokens(logits, {.greedy = true}, {}, predicted_->room(truth.size()));
  truth_->add(truth);
}

std::vector<Score> Classification::scores() const {
  const ConfusionMatrix matrix = *confusion();
  const auto truth = truth_ ? truth_->values<std::int32_t>() : std::vector<std::int32_t>();
  const auto rows = std::count_if(truth.begin(), truth.end(), [](auto id) { return id >= 0; });
  std::int64_t right = 0, occurring = 0;
  double f1 = 0;
  for (std::size_t i = 0; i < labels_.size(); ++i) {
    const std::int64_t of_class =
        std::count(truth.begin(), truth.end(), static_cast<std::int32_t>(i));
    std::int64_t taken = 0;
    for (std::size_t j = 0; j < labels_.size(); ++j) taken += matrix.count(j, i);
    right += matrix.count(i, i);
    if (of_class == 0) continue;
    ++occurring;
    f1 += 2 * static_cast<double>(matrix.count(i, i)) / static_cast<double>(of_class + taken);
  }
  return {{"accuracy", static_cast<double>(right) / static_cast<double>(rows)},
          {"macro_f1", f1 / static_cast<double>(occurring)}};
}

std::optional<ConfusionMatrix> Classification::confusion() const {
  const std::size_t classes = labels_.size();
  ConfusionMatrix matrix{.labels = labels_,
                         .counts = std::vector<std::int64_t>(classes * classes, 0)};
  if (!truth_) return matrix;
  const auto truth = truth_->values<std::int32_t>(), predicted = predicted_->values<std::int32_t>();
  for (std::size_t i = 0; i < truth.size(); ++i) {
    if (truth[i] < 0 || predicted[i] < 0) continue;
    ++matrix.counts[static_cast<std::size_t>(truth[i]) * classes +
                    static_cast<std::size_t>(predicted[i])];
  }
  return matrix;
}

}  // namespace carousel
