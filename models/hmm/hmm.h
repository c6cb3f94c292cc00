#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/config/options.h"
#include "engine/model/estimator.h"
#include "engine/model/model.h"
#include "engine/model/state_tracker.h"
#include "models/hmm/tables.h"

namespace carousel {

/// What states emit: whatever the text says; or a state is a token that was meant, where keys beside it
/// are hit by mistake (Typist).
enum class Emission : std::uint8_t { learnt, keyboard };

struct HmmConfig {
  std::int64_t vocabulary = 0;       ///< V, from the data
  std::int32_t begin = -1;           ///< <bos>, from the data
  std::vector<std::string> texts{};  ///< of the tokens, from the data
  std::int32_t unknown = -1;         ///< <unk>, from the data
  std::int32_t line_end = -1;        ///< the token that ends a line, from the data
  Emission emission = Emission::learnt;
  double typo_probability = 0.05;
  std::int64_t states = 16;  ///< S; of a keyboard V
  std::int64_t iterations = 50;
  double tolerance = 1e-4;
  double smoothing = 0.01;
  std::int64_t block = 1024;

  static constexpr std::int64_t kMostStates = 1 << 14;
  void describe(OptionSection& section);
};

/// Hidden Markov model: a chain of S states, of which only the tokens are seen that they emit:
///
///     p(x₁ … x_T) = Σ_{z₁ … z_T} π(z₁) b(x₁ | z₁) · Π_t a(z_t | z_{t−1}) b(x_t | z_t)
///
/// π, a and b are fitted by Baum-Welch, from random ones; of a keyboard, π and a are counted in the text,
/// whose tokens are states, and b is that of a Typist. A line is a sequence, <bos> is no token of
/// it; and so is a document of a stream. In the fit a stream is cut into blocks, of which each begins
/// with π. Computed in double precision.
///
/// Source   Rabiner 1989, Proceedings of the IEEE 77(2):257–286.
class Hmm final : public Model, public Decoder, public Estimator, public StateTracker {
 public:
  /// `beginning` has the seed of the random tables.
  Hmm(const HmmConfig& config, const Device& device, DType compute, const Beginning& beginning);

  Parameters& parameters() override { return parameters_; }
  /// "filter" [B, W] f64: p(state | tokens so far); 0 in all states before a sequence's first token.
  State initial_state(std::int64_t batch) const override;
  Objective objective(Pass& pass, const Batch& batch, const State& state) override;
  Decoder* decoder() override { return this; }
  State decoding_state(std::int64_t batch) const override { return initial_state(batch); }
  Tensor logits(Pass& pass, const Field& token, const State& state) override;

  Estimator* estimator() override { return this; }
  bool fit(const Fit& fit) override;
  /// After config.iterations, or if the last one but one gained less than config.tolerance.
  bool is_over(std::int64_t iterations) const override;
  std::vector<NamedTensor> tables() const override;
  void load(const SafetensorsFile& file) override;
  std::string summary() const override;

  StateTracker* state_tracker() override { return this; }
  std::int64_t states() const override { return probabilities_.states; }
  std::vector<TrackedStates> track(std::span<const std::vector<std::int32_t>> sequences,
                                   StateQuestion question) const override;
  bool states_are_tokens() const override { return config_.emission == Emission::keyboard; }

  const HmmTables& probabilities() const { return probabilities_; }
  std::int32_t boundary() const { return boundary_; }

 private:
  void count_typist(const Corpus& corpus);
  void begin_randomly(const Corpus& corpus);

  HmmConfig config_;
  std::uint64_t seed_;
  Parameters parameters_;
  std::int32_t boundary_ = -1;  ///< token after which a sequence begins; −1: none
  HmmTables probabilities_;
  /// Nats per token of the training data before the last iteration, and before the one before it;
  /// infinite before there were any.
  double losses_[2];
};

}  // namespace carousel
