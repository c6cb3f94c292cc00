#include "models/alignment.h"

#include <vector>

#include "engine/ops.h"
#include "models/text_windows.h"

namespace carousel {

Tensor mean_of_heads(Tape& tape, const Tensor& weights) {
  const Shape& shape = weights.shape();
  const std::int64_t B = shape[0], A = shape[1], T = shape[2], S = shape[3];
  std::vector<std::int32_t> rows;  // of [B, A, T, S], in the order of [A, T, B, S]
  for (std::int64_t a = 0; a < A; ++a) {
    for (std::int64_t t = 0; t < T; ++t) {
      for (std::int64_t b = 0; b < B; ++b) {
        rows.push_back(static_cast<std::int32_t>((b * A + a) * T + t));
      }
    }
  }
  const Tensor ordered = gathered_rows(tape, weights, rows, {A, T * B, S});
  return pool(tape.constant(ordered), Pooling::mean).value();
}

Tensor joined_weights(Tape& tape, const std::vector<Tensor>& steps) {
  const std::int64_t A = steps.front().shape()[1], S = steps.front().shape()[3];
  std::vector<Var> parts;
  for (const Tensor& step : steps) parts.push_back(tape.constant(step.reshaped({1, A, S})));
  std::vector<std::int32_t> rows;  // of [T, A, S], in the order of [A, T, S]
  for (std::int64_t a = 0; a < A; ++a) {
    for (std::int64_t t = 0; t < std::ssize(steps); ++t) {
      rows.push_back(static_cast<std::int32_t>(t * A + a));
    }
  }
  return gathered_rows(tape, join_steps(parts).value(), rows, {1, A, std::ssize(steps), S});
}

}  // namespace carousel
