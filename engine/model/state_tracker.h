#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace carousel {

/// What is asked of the hidden states that a sequence came from.
enum class StateQuestion : std::uint8_t {
  path,    ///< the likeliest sequence of states
  filter,  ///< each state, given the tokens up to it
  smooth   ///< each state, given all tokens
};

/// The answer, of a sequence of T tokens.
struct TrackedStates {
  std::vector<std::int32_t> states;   ///< [T] of the path, or each the likeliest
  std::vector<double> probabilities;  ///< [T, S], of filter and smooth
  double log_probability = 0;         ///< nats: of path and tokens together, or of the tokens
};

/// Tells which hidden states sequences came from.
class StateTracker {
 public:
  virtual ~StateTracker() = default;
  virtual std::int64_t states() const = 0;  ///< S
  /// Of each sequence, which is one from its first token on.
  virtual std::vector<TrackedStates> track(std::span<const std::vector<std::int32_t>> sequences,
                                           StateQuestion question) const = 0;
  /// Whether states are tokens, by their ids: what was meant where the sequence's were seen.
  virtual bool states_are_tokens() const = 0;
};

}  // namespace carousel
