#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/tape/tensor.h"

namespace carousel {

/// How a token is chosen. Applied in this order: temperature, top-k, top-p.
struct SamplingConfig {
  double temperature = 1;
  std::int64_t top_k = 0;  ///< only the k most probable; 0: all
  double top_p = 1;        ///< only the most probable that together reach p
  bool greedy = false;     ///< always the most probable
  std::uint64_t seed = 1;
  std::int32_t suppressed_token = -1;  ///< never chosen: <unk>; −1: none
};

/// The probabilities of logits; the largest may not be infinite.
std::vector<double> softmax(std::span<const float> logits);

/// Queues a choice for each row of logits [B, V] into token [B]; −1 for a row that is not numbers.
/// `draw` [1] i64, on the device, counts the choices: each has random numbers of its own. It may be
/// empty if greedy.
void choose_tokens(const Tensor& logits, const SamplingConfig& config, const Tensor& draw,
                   const Tensor& token);

}  // namespace carousel
