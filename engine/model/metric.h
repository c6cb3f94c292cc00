#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model.h"
#include "engine/text/vocabulary.h"

namespace carousel {

/// Numbers that batches leave on the device, read together at the end: nothing waits in between.
class Gathered {
 public:
  Gathered(const Device& device, DType dtype) : device_(device), dtype_(dtype) {}

  /// The place of the next `count` numbers, [count], for the caller to queue a write to.
  Tensor room(std::int64_t count);
  /// Queues a copy of all elements of `values`.
  void add(const Tensor& values) { copy(values, room(values.size())); }
  template <class T>
  std::vector<T> values() const {
    std::vector<T> all(static_cast<std::size_t>(count_));
    read(all.data());
    return all;
  }

 private:
  struct Block {
    Tensor memory;
    std::int64_t used = 0;
  };
  void read(void* to) const;
  Device device_;
  DType dtype_;
  std::vector<Block> blocks_;
  std::int64_t count_ = 0;
};

/// A number that says how good a model is: "loss", "accuracy".
struct Score {
  std::string name;
  double value = 0;
  std::string unit{};  ///< "nats per token"; empty of a share
};

/// How often a row of class i was taken for class j.
struct ConfusionMatrix {
  std::vector<std::string> labels;
  std::vector<std::int64_t> counts;  ///< [C, C], row i: the true class

  std::int64_t count(std::size_t truth, std::size_t predicted) const {
    return counts[truth * labels.size() + predicted];
  }
};

/// Judges what a model makes of data, over all of its batches.
class Metric {
 public:
  virtual ~Metric() = default;
  virtual void add(const Batch& batch, const Objective& objective) = 0;
  /// Waits for the device. The first score is the one that says which of two models is better.
  virtual std::vector<Score> scores() const = 0;
  /// The name and unit of that score.
  virtual Score decisive() const = 0;
  virtual bool higher_is_better() const { return false; }
  virtual bool needs_prediction() const { return false; }
  virtual bool needs_choices() const { return false; }
  virtual std::optional<ConfusionMatrix> confusion() const { return std::nullopt; }
};
/// Judged in order: the first score of the first metric decides what "best" means.
using Metrics = std::vector<std::unique_ptr<Metric>>;

/// The objective, a mean over everything that counts: "loss", and with several terms each by its
/// name.
class MeanLoss final : public Metric {
 public:
  /// How much a batch's mean counts: as many targets as the batch says, or as the loss itself counts,
  /// where that is known on the device alone.
  enum class Weight : std::uint8_t { batch, loss };
  explicit MeanLoss(std::string unit, Weight weight = Weight::batch)
      : unit_(std::move(unit)), weight_(weight) {}
  void add(const Batch& batch, const Objective& objective) override;
  std::vector<Score> scores() const override;
  Score decisive() const override { return {.name = "loss", .unit = unit_}; }

 private:
  struct Term {
    std::string name;
    float weight;
    Gathered means;
  };
  std::string unit_;
  Weight weight_;
  std::vector<Term> terms_;
  std::vector<std::int64_t> counted_;   ///< of each batch, by Weight::batch
  std::optional<Gathered> own_counts_;  ///< by Weight::loss
};

/// "token_accuracy": the share of the targets that count which are the model's likeliest tokens, each
/// given the true ones before it. ConfigError for a model whose objective has no choices.
class TokenAccuracy final : public Metric {
 public:
  void add(const Batch& batch, const Objective& objective) override;
  std::vector<Score> scores() const override;
  Score decisive() const override { return {.name = "token_accuracy"}; }
  bool higher_is_better() const override { return true; }
  bool needs_choices() const override { return true; }

 private:
  std::optional<Gathered> chosen_, target_;
};

/// Which class has the largest logit, against the field "label": "accuracy" (the share of rows that
/// are right), "macro_f1" (the mean over the classes that occur of 2tp / (2tp + fp + fn)). A row
/// whose logits are no numbers is of no class, and wrong.
class Classification final : public Metric {
 public:
  explicit Classification(const Vocabulary& labels);
  void add(const Batch& batch, const Objective& objective) override;
  std::vector<Score> scores() const override;
  Score decisive() const override { return {.name = "accuracy"}; }
  bool higher_is_better() const override { return true; }
  bool needs_prediction() const override { return true; }
  std::optional<ConfusionMatrix> confusion() const override;

 private:
  std::vector<std::string> labels_;
  std::optional<Gathered> predicted_, truth_;
};

}  // namespace carousel
