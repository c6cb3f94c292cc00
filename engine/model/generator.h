#pragma once

#include <cstdint>

#include "engine/model/model.h"

namespace carousel {

/// How the next token is chosen. Applied in this order: temperature, top-k, top-p.
struct SamplingConfig {
  double temperature = 1;
  std::int64_t top_k = 0;  ///< only the k most probable; 0: all
  double top_p = 1;        ///< only the most probable that together reach p
  bool greedy = false;     ///< always the most probable
  std::uint64_t seed = 1;
  std::int32_t suppressed_token = -1;  ///< never chosen: <unk>; −1: none
};

/// Writes on, one token at a time. It carries the model's state, so that a token costs one step
/// however long the text has become.
class Generator {
 public:
  Generator(Model& model, const SamplingConfig& config);

  /// Takes in a token of the prompt.
  void read(std::int32_t token);
  /// Chooses the next token and takes it in. At least one token must have been read. Error if the
  /// model's logits are not numbers.
  std::int32_t next();

 private:
  void step();

  Model& model_;
  SamplingConfig config_;
  Device device_;
  Arena arena_;
  Tape tape_;
  RecurrentState state_;
  Tensor token_;     ///< [1, 1]: the last token read or chosen
  Tensor position_;  ///< [1]: how many were chosen, for the random numbers
  Tensor logits_;    ///< [1, V] in the arena, until the next step
  std::int64_t chosen_ = 0;
};

}  // namespace carousel
