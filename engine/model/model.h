#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/batches/batches.h"
#include "engine/model/state.h"
#include "engine/ops.h"
#include "engine/tape/parameters.h"

namespace carousel {

/// The context of one forward (and backward) pass: the tape it is recorded on, its random numbers,
/// what is asked of it, and the states it leaves behind.
class Pass {
 public:
  struct Options {
    RandomSource random{};    ///< its stream is a multiple of 2⁴⁸, to which places are added
    Tensor denominator{};     ///< [1] f32: what sums of losses are divided by; empty: what counts
    bool prediction = false;  ///< metrics ask for the objective's prediction
    bool choices = false;     ///< metrics ask for its choices
    /// The batch is one of several whose gradients are added up: a loss is a sum over rows, divided
    /// by the denominator of all of them.
    bool partial = false;
  };
  explicit Pass(Tape& tape) : Pass(tape, {}) {}
  Pass(Tape& tape, Options options) : tape_(tape), options_(std::move(options)) {}

  Tape& tape() const { return tape_; }
  /// False in evaluation and generation: dropout is off.
  bool training() const { return tape_.recording(); }
  bool wants_prediction() const { return options_.prediction; }
  bool wants_choices() const { return options_.choices; }
  const Tensor& denominator() const { return options_.denominator; }
  bool partial() const { return options_.partial; }
  /// The random numbers of one place in the model; places are numbered by the model, below 2⁴⁸.
  RandomSource random(std::uint64_t place) const;

  /// `to` becomes `from` once the pass is over. Not at once: the backward pass still reads the
  /// state the window began with.
  void carry(const Tensor& from, const Tensor& to) { carried_.emplace_back(from, to); }
  void finish() const;

 private:
  Tape& tape_;
  Options options_;
  std::vector<std::pair<Tensor, Tensor>> carried_;
};

/// One part of what training makes small. Its gradients, times `weight`, are written already.
/// Evaluation has the losses of predictions alone: a model adds penalties when it trains.
struct LossTerm {
  std::string name;  ///< in reports: "loss"
  Loss loss;
  float weight = 1;
};

/// What a model makes of a batch.
struct Objective {
  std::vector<LossTerm> terms;  ///< the objective is Σ weight · mean
  Tensor prediction{};  ///< for metrics, if the pass wants one: a classifier's logits [B, C]
  Tensor choices{};     ///< the same: the likeliest token [T, B] i32 where each target is

  /// [K] f32: the means of the terms, on the device.
  Tensor means(Tape& tape) const;
};

/// Writes on, a token a row at a time.
class Decoder {
 public:
  virtual ~Decoder() = default;
  /// Reads token [T, B] on from the state, in one pass, and carries the state: T is 1 in a step of
  /// generation, more for a prompt, whose rows may have lengths of at least 1. Logits [B, V] of the
  /// token after each row's last.
  virtual Tensor logits(Pass& pass, const Field& token, const State& state) = 0;
  /// The state before a text of each of `batch` rows.
  virtual State decoding_state(std::int64_t batch) const = 0;
  /// How many tokens a row may have read, where positions end; 0: any number. Beyond that it begins
  /// anew with its last ones.
  virtual std::int64_t longest() const { return 0; }
};

/// Gives one answer a row.
class Predictor {
 public:
  virtual ~Predictor() = default;
  /// Logits [B, C] over the classes, for a batch that need not have the field "label".
  virtual Tensor predict(Pass& pass, const Batch& batch) = 0;
};

/// Gives the hidden states of its top layer, which its output layer reads, and its token embeddings.
class Embedder {
 public:
  virtual ~Embedder() = default;
  /// Of a hidden state: units that have read a row from its front up to a step, and behind these the
  /// units that have read it from its end back to the step.
  struct Units {
    std::int64_t forward = 0, backward = 0;
    std::int64_t all() const { return forward + backward; }
  };
  virtual Units units() const = 0;
  /// Whether a line must lie in one batch, because what follows a step counts or nothing is carried.
  virtual bool reads_whole_lines() const = 0;
  /// The hidden states [T, B, units] after each step of a batch of packed_batches(), read on from
  /// the state, which is carried. Each line begins where the batch has a reset.
  virtual Tensor hidden(Pass& pass, const Batch& batch, const State& state) = 0;
  /// [V, E] f32.
  virtual Tensor token_embeddings() const = 0;
};

class AttentionReader;
class Estimator;
class StateTracker;
class Translator;

/// What training and evaluation need of a model; what else it can do it gives on request.
class Model {
 public:
  virtual ~Model() = default;

  virtual Parameters& parameters() = 0;
  /// The state before the first window of `batch` rows; nothing in a model that carries none.
  virtual State initial_state(std::int64_t batch) const;
  /// The losses of a batch, recorded on the pass's tape. `state` is what the last window left; the
  /// pass carries this window's final state into it (truncated BPTT: values carry on, gradients
  /// stop).
  virtual Objective objective(Pass& pass, const Batch& batch, const State& state) = 0;

  virtual ReadingWindows reading_windows() const { return {}; }

  virtual Decoder* decoder() { return nullptr; }
  virtual Predictor* predictor() { return nullptr; }
  virtual Embedder* embedder() { return nullptr; }
  virtual Estimator* estimator() { return nullptr; }
  virtual StateTracker* state_tracker() { return nullptr; }
  virtual Translator* translator() { return nullptr; }
  virtual AttentionReader* attention_reader() { return nullptr; }
};

}  // namespace carousel
