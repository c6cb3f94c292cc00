#pragma once

#include <cstdint>

#include "engine/model/model.h"

namespace carousel {

/// Writes texts of which each is conditioned by another: translations.
///
/// Each of B sources has K rows that write, its beam: row k·B + b of tokens, logits and states is the
/// k-th of source b. What is made of the sources alone is held once, whatever K is.
class Translator {
 public:
  virtual ~Translator() = default;
  /// How much room the state needs.
  struct Room {
    std::int64_t beam = 1;   ///< K
    std::int64_t steps = 1;  ///< tokens that a row reads at most, <bos> among them
  };
  /// Reads source [S, B], whose rows have lengths of at least 1. The state in which K target texts of
  /// each begin, whose tensors are not the tape's.
  virtual State encode(Pass& pass, const Field& source, const Room& room) = 0;

  struct Step {
    Tensor logits;       ///< [K·B, V] of the token after this one
    Tensor alignment{};  ///< [K·B, S] f32: how the step's attention is spread over the source, 0
                         ///< beyond its length; empty unless asked for, and without attention
  };
  /// Reads one token [1, K·B] a row on from the state, and carries the state.
  virtual Step step(Pass& pass, const Tensor& token, const State& state, bool aligned) = 0;
  virtual bool attends() const = 0;  ///< steps have an alignment
};

}  // namespace carousel
