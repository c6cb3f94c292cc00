#pragma once

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/random.h"
#include "kernels/common/view.h"

namespace carousel {

/// Draws the next token of each row from softmax(logits / temperature), cut to its most probable
/// tokens:
///
///     weight[v] = 2^((logits[v] − max logits) · log₂e / temperature)
///     top-k     keeps the k tokens of largest logit;
///     top-p     keeps the fewest of those, most probable first, whose weights reach
///               top_p · (the sum of the weights top-k kept); always at least one;
///     token     = the first v for which the kept weights of tokens 0 … v exceed u · (the sum of
///                 all kept weights), with u uniform in [0, 1): the inverse of the distribution
///                 function, in vocabulary order.
///
/// greedy: the token of largest logit instead. Wherever two logits are equal, the lower index
/// counts as the larger. Row n draws u as element n of `random`.
///
/// Values   −inf is a token with weight 0; the suppressed token counts as −inf. A row with a NaN or
///          +inf anywhere, or with nothing but −inf, gives the impossible token −1.
/// Errors   ShapeError if the extents disagree or V is 0 or above kMaxVocabulary; ConfigError
///          unless temperature is positive and finite, top_k ≥ 0 and top_p in (0, 1].
///          B == 0 does nothing. greedy looks at none of these and needs no `random`.
/// Accuracy the same token on every device, bit for bit: weights are 64-bit integers, sums of which
///          do not depend on order, computed by one routine that rounds nothing but its argument.
///          A probability is within 10⁻⁶ of itself (float rounds the argument), plus 2⁻³² of u's
///          step; what is less than 2⁻⁴⁰ of the most probable token's is 0.
/// Memory   reads the logits, from cache: once if greedy, on CUDA twice without cuts and three times
///          with them; up to twenty times on the CPU, and where they may keep over 2,048 tokens.
///          Needs no scratch.
/// Source   Fan, Lewis & Dauphin 2018, arXiv:1805.04833, section 5 (top-k); Holtzman et al. 2020,
///          arXiv:1904.09751, section 3.1 (top-p).
template <class T>
struct Sample {
  static constexpr std::int64_t kMaxVocabulary = std::int64_t{1} << 22;

  View<const T, 2> logits;  ///< [B, V]
  float temperature = 1;    ///< > 0
  std::int64_t top_k = 0;   ///< 0: all
  float top_p = 1;          ///< 1: all
  bool greedy = false;
  std::int32_t suppressed_token = -1;  ///< never chosen; −1: none
  RandomSource random{};
  View<std::int32_t, 1> token;  ///< [B] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

}  // namespace carousel
