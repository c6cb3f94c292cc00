#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/training/evaluation.h"
#include "engine/training/training_step.h"

namespace carousel {

struct TrainConfig {
  std::int64_t steps = 2000;                        ///< optimiser steps in all
  std::int64_t batch = 32;                          ///< B: parallel sequences
  std::int64_t tokens_per_batch = 0;                ///< of pairs, instead of B; 0: B
  std::int64_t accumulate = 1;                      ///< K: batches of B rows that make a step
  std::int64_t window = 64;                         ///< T of truncated BPTT
  double window_deviation = 0, window_halving = 0;  ///< of a T drawn anew each step: StreamOptions
  bool random_start = false;                        ///< of a stream's epochs
  double reset_probability = 0;                     ///< of a row, at a window's begin
  std::int64_t seed = 1;                            ///< of weights, masks and shuffling
  std::int64_t report_every = 20;
  std::int64_t evaluate_every = 200;  ///< 0: only at the end
  std::int64_t save_every = 200;      ///< 0: only at the end
  std::int64_t sample_every = 0;      ///< 0: never
  std::int64_t sample_tokens = 200;
  std::int64_t patience = 0;  ///< stop after this many evaluations without a new best; 0: never
  std::int64_t keep = 0;      ///< checkpoints kept besides the last and the best
};

/// One line of metrics.jsonl.
struct Report {
  std::int64_t step = 0, epoch = 0, tokens = 0;
  double seconds = 0;
  double loss = 0;           ///< the objective, mean over the steps since the last report
  std::vector<Score> terms;  ///< its parts, if there are several
  double gradient_norm = 0;  ///< of the reported step, before clipping
  double learning_rate = 0;
  double tokens_per_second = 0;  ///< since the last report
  std::optional<Evaluation> validation;
  /// The evaluation was still due when training began again: it is all there is to tell, and belongs
  /// to the report of this step.
  bool belated = false;
  std::int64_t averaged = 0;  ///< weights in the average that was evaluated; 0: the weights were
};

/// An iteration of a fit is over; or the evaluation after the last one, which was reported before.
struct FitReport {
  std::int64_t step = 0;    ///< iterations
  std::int64_t tokens = 0;  ///< fitted to, over all iterations
  double seconds = 0;
  std::optional<double> loss{};  ///< of the training data, before the iteration
  std::optional<Evaluation> validation{};
};

/// Hears how training goes.
class TrainObserver {
 public:
  virtual ~TrainObserver() = default;
  /// A step was queued; its values are in the arena.
  virtual void on_step(const TrainingRun& /*run*/, const Arena& /*arena*/) {}
  virtual void on_report(const Report& /*report*/) {}
  /// Of an estimator: its fit has come so far in a phase, and it has something to report.
  virtual void on_progress(std::string_view /*phase*/, std::int64_t /*done*/,
                           std::int64_t /*all*/) {}
  virtual void on_fit(const FitReport& /*report*/) {}
  virtual void before_save() {}
  virtual void on_save(std::int64_t /*step*/, bool /*is_best*/) {}
  virtual void on_sample(const TrainingRun& /*run*/) {}  ///< time for a sample
  /// Steps are no graphs from now on, and why. At most once, and not if none were wanted.
  virtual void on_graph_refused(const std::string& /*why*/) {}
  /// What the user should know: the run's folder has moved, a resumed run has other options.
  virtual void on_notice(const std::string& /*what*/) {}
};

enum class TrainEnd : std::uint8_t { finished, interrupted, early };

/// What a Trainer works with, beside the run it changes.
struct TrainerParts {
  const TrainConfig& config;
  TrainingStepParts step;
  BatchSource* validation;  ///< may be absent
  MakeMetrics metrics;      ///< of its evaluations
  Metadata metadata;        ///< of every checkpoint
  CheckpointFolder& checkpoints;
  TrainObserver& observer;
  std::function<void()> before_save = {};  ///< may move `checkpoints`
};

/// Trains a run from where it stands to config.steps, with reports, evaluations and checkpoints on
/// the way.
class Trainer {
 public:
  Trainer(TrainingRun& run, const TrainerParts& parts);

  /// `stop`, set from outside at any time, ends training after the current step, with the
  /// evaluation that is due and a checkpoint. A run that has ended early takes no step unless its
  /// patience was raised.
  /// A run at its last step without the evaluation due there, which was stopped when this step was
  /// not its last, is evaluated.
  /// Error if a loss or a gradient stops being finite: it names the step and the first tensor that
  /// went wrong, and no checkpoint is written from then on. An evaluation that is not finite is
  /// reported, is never the best, and changes nothing else: the weights are finite.
  TrainEnd train(const std::atomic<bool>& stop);
  bool anything_due() const;  ///< a step or the last evaluation

  const StepGraphs& graphs() const { return step_.graphs(); }

 private:
  using Clock = std::chrono::steady_clock;
  void queue_step();
  Report measure();  ///< what happened since the last report; checks that it was finite
  void evaluate_into(Report& report);
  void sample();
  bool out_of_patience() const;
  void save();
  [[noreturn]] void explain_divergence(std::int64_t bad_step);

  TrainingRun& run_;
  const TrainConfig& config_;
  TrainerParts parts_;
  const Device device_;
  TrainingStep step_;
  /// One slot per step since the last report: [report_every, K] and [report_every].
  Tensor losses_, norms_;
  std::vector<DataPosition> begun_;  ///< where the data stood before each of those steps
  std::int64_t reported_step_, reported_tokens_;
  Clock::time_point reported_at_;
  std::int64_t last_saved_;
  bool new_best_ = false;
};

}  // namespace carousel
