#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/model/sampling.h"

namespace carousel {

/// How texts are searched for, and what is wanted of them.
struct BeamOptions {
  static constexpr std::int64_t kWidest = 1000;

  std::int64_t beam = 4;         ///< K: hypotheses of a source that are written on at a time
  std::int64_t best = 1;         ///< N of them are wanted, 1 … K
  double length_penalty = 0.6;   ///< α ≥ 0
  double coverage_penalty = 0;   ///< β ≥ 0
  double longest_factor = 2;     ///< a text has at most ⌊factor·|X|⌋ + constant tokens, and at
  double longest_constant = 10;  ///< least room for one; |X| of its source, <eos> counted in both
  std::vector<std::int32_t> suppressed{};  ///< tokens that are never written
  bool aligned = false;                    ///< hypotheses tell their alignment
  /// Tokens are drawn, so that there is one hypothesis of a source: a beam of 1. Its own suppressed
  /// token does not count.
  std::optional<SamplingConfig> sampling{};

  /// ConfigError for what is out of range.
  void check() const;
  std::int64_t longest(std::int64_t source) const;
};

/// A text that a search found.
struct Hypothesis {
  std::vector<std::int32_t> tokens{};  ///< its last one is <eos>, if it ended
  bool ended = false;                  ///< false: it had reached the longest length
  double log_probability = 0;          ///< nats, of all its tokens
  double score = 0;                    ///< by which it was chosen
  std::vector<float> alignment{};  ///< [tokens, |X|] if asked for: where each one's step attended
};

/// The beam of one source: which K hypotheses are written on, and which have ended. Of a hypothesis
/// Y of |Y| tokens for a source X:
///
///     score(Y) = log P(Y | X) / lp(Y) + cp(X, Y),    lp(Y) = (5 + |Y|)^α / (5 + 1)^α,
///     cp(X, Y) = β·Σ_i log min(Σ_j p_ij, 1),    p_ij: how much token j of Y attends to place i of X
///
/// where a sum below the least normal float counts as that.
///
/// Each step takes the candidates, hypotheses with one token more, in the order of falling
/// log-probability: one that ends goes to the finished ones, any other is written on, until there are
/// K that are. Of equals the lower token comes first, then the lower row. Hypotheses that reach the
/// longest length are finished behind all that have ended.
///
/// It is over when N have ended and no other can become better than the worst of the N best: as
/// log-probabilities only fall and cp ≤ 0, none that is written on ever exceeds its log-probability
/// divided by the lp of the longest length. With K = 1 it is over at the first <eos>, whatever α is:
/// that is greedy search.
///
/// Source   Wu et al. 2016, arXiv:1609.08144, section 7, equation 14.
class Beam {
 public:
  Beam(const BeamOptions& options, std::int32_t end, std::int64_t source);

  /// One token more on a hypothesis.
  struct Extension {
    std::int32_t row = 0;  ///< of the beam
    std::int32_t token = 0;
    double log_probability = 0;  ///< of all of it; −∞ is none
  };
  /// A step. `alignment` has the [rows, |X|] weights of the rows there were, or nothing.
  void extend(std::vector<Extension> candidates, std::vector<float> alignment);
  /// The rows that are written on, most probable first; before the first step there is one. Their
  /// `row` is what it was in the step before.
  const std::vector<Extension>& rows() const { return rows_; }
  bool is_over() const { return over_; }
  /// The best N or fewer, best first.
  const std::vector<Hypothesis>& finished() const { return finished_; }

 private:
  double length_divisor(std::int64_t tokens) const;
  double coverage(const std::vector<float>& alignment) const;
  void finish(const Extension& last, bool ended);
  bool is_settled() const;

  const BeamOptions& options_;
  std::int32_t end_;
  std::int64_t source_, longest_;
  std::vector<Extension> rows_{Extension{}};
  std::vector<std::vector<Extension>> steps_;   ///< the rows after each step before this one
  std::vector<std::vector<float>> alignments_;  ///< of each step
  std::vector<Hypothesis> finished_;
  bool over_ = false;
};

}  // namespace carousel
