#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel::reference {

struct CrossEntropy {
  std::size_t rows = 0, vocab = 0;
  std::vector<double> logits;        // [rows, vocab]
  std::vector<std::int32_t> target;  // [rows]; −1: ignored
  double smoothing = 0;
  std::vector<double> d_loss;  // [rows]
};

struct CrossEntropyResult {
  std::vector<double> loss, lse;  // [rows]
  std::vector<double> d_logits;   // [rows, vocab]
};

/// From the definition: the cross-entropy −Σ_v q_v·log p_v of the model's distribution p = softmax
/// against the smoothed target q, and its derivative p − q.
inline CrossEntropyResult cross_entropy(const CrossEntropy& in) {
  CrossEntropyResult out;
  for (std::size_t n = 0; n < in.rows; ++n) {
    const double* x = in.logits.data() + n * in.vocab;
    double largest = -INFINITY;
    for (std::size_t v = 0; v < in.vocab; ++v) largest = std::fmax(largest, x[v]);
    double sum = 0;
    for (std::size_t v = 0; v < in.vocab; ++v) {
      sum += x[v] == -INFINITY ? 0 : std::exp(x[v] - largest);
    }
    const double lse = largest + std::log(sum);
    const std::int32_t word = in.target[n];
    const bool known = word >= 0 && static_cast<std::size_t>(word) < in.vocab;

    double loss = 0;
    for (std::size_t v = 0; v < in.vocab; ++v) {
      double q = in.smoothing / static_cast<double>(in.vocab);
      if (known && v == static_cast<std::size_t>(word)) q += 1 - in.smoothing;
      const double log_p = x[v] - lse;
      if (q > 0) loss -= q * log_p;
      const double d = in.d_loss[n] * (std::exp(log_p) - q);
      out.d_logits.push_back(word == -1 ? 0 : known ? d : NAN);
    }
    out.loss.push_back(word == -1 ? 0 : known ? loss : NAN);
    out.lse.push_back(lse);
  }
  return out;
}

}  // namespace carousel::reference
