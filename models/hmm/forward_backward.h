#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "models/hmm/tables.h"

namespace carousel {

/// The next prediction p(state t + 1 | tokens up to t) [W], of p(state t | tokens up to t), which is 0
/// in all states before a sequence's first token.
void predict_state(const HmmTables& tables, std::span<const double> filtered,
                   std::span<double> predicted);

/// Makes a prediction p(state t | tokens before t) [W] to p(state t | tokens up to t) and returns
/// p(token t | tokens before t). Where that is 0, the token tells nothing of the state.
double observe(const HmmTables& tables, std::int32_t token, std::span<double> state);

/// The log of a product of many numbers from 0 to 1, with few calls of std::log.
class LogProduct {
 public:
  void multiply(double factor);
  double value() const;

 private:
  double sum_ = 0, rest_ = 1;
};

/// What Baum-Welch sums over sequences. Adding is the same in any build, in the order of the calls.
struct HmmCounts {
  HmmCounts() = default;
  explicit HmmCounts(const HmmTables& tables);
  void add(const HmmCounts& other);

  std::vector<double> start;       ///< [W] expected number of sequences that begin in a state
  std::vector<double> transition;  ///< [W, W] of transitions, divided by their probability
  std::vector<double> emission;    ///< [V, W] of tokens of each state
  double log_probability = 0;      ///< nats, of all sequences
  std::int64_t sequences = 0, tokens = 0;
};

/// The passes of forward-backward over a sequence of T tokens: O(T·S²) operations, numbers that are
/// scaled to a sum of 1 at each step instead of logarithms. Against those they are exact to rounding,
/// but that a state is lost whose share of a step's probability is below 1e-300.
///
/// Memory   3·T·W numbers for the longest sequence so far, and a transition table.
/// Source   Rabiner 1989, Proceedings of the IEEE 77(2):257–286, sections III and V.A.
class ForwardBackward {
 public:
  explicit ForwardBackward(const HmmTables& tables);

  /// log p(tokens); −∞ if they cannot come. Fills filtered(). The tokens must live until the last of
  /// these calls.
  double forward(std::span<const std::int32_t> tokens);
  /// Fills smoothed(), after forward().
  void backward();
  /// Adds what the sequence has, after backward().
  void count(HmmCounts& counts) const;

  /// [W] p(state t | tokens up to t), and p(state t | all tokens).
  std::span<const double> filtered(std::size_t t) const { return row_of(filtered_, t, width_); }
  std::span<const double> smoothed(std::size_t t) const { return row_of(smoothed_, t, width_); }

 private:
  void count_transitions(HmmCounts& counts) const;

  const HmmTables& tables_;
  std::size_t width_;
  std::vector<double> into_;  ///< the transposed transitions
  std::span<const std::int32_t> tokens_;
  double log_probability_ = 0;
  std::vector<double> scale_;     ///< [T] p(token t | tokens before t)
  std::vector<double> filtered_;  ///< [T, W] α
  std::vector<double> smoothed_;  ///< [T, W] γ
  std::vector<double> evidence_;  ///< [T, W] p(token t | state) · β / scale
  std::vector<double> later_;     ///< [W] β
};

/// The likeliest states of a sequence.
/// Source   Viterbi 1967, IEEE Transactions on Information Theory 13(2):260–269.
class Viterbi {
 public:
  explicit Viterbi(const HmmTables& tables);

  /// The states with the largest p(states, tokens), and its log; of equally probable ones that with
  /// the least state where they differ last. −∞ if the tokens cannot come: a token that no state may
  /// emit then tells nothing of the state. Memory is T·W states.
  double path(std::span<const std::int32_t> tokens, std::span<std::int32_t> states) const;

 private:
  HmmTables logs_;
};

}  // namespace carousel
