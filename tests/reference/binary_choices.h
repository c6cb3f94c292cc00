#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel::reference {

/// A decision between yes and no by hidden · weight: −log σ of the logit with the answer's sign, and
/// the derivative by the logit.
struct Decision {
  double loss, slope;
};
inline Decision decide(double logit, bool yes) {
  const double odds = std::exp(yes ? -logit : logit);  // of the wrong answer
  return {std::log1p(odds), (yes ? -1 : 1) * odds / (1 + odds)};
}

struct BinaryChoices {
  std::size_t width = 0, choices = 0;
  std::vector<double> hidden, weight;        ///< [N, E], [V, E]
  std::vector<std::int32_t> choice, answer;  ///< [N, C]; −2³¹ is none
};
struct BinaryChoicesResult {
  std::vector<double> loss, d_logit, d_hidden;  ///< of the sum of all losses
  double sum = 0;
  std::int32_t count = 0;
};

inline BinaryChoicesResult binary_choices(const BinaryChoices& p) {
  const std::size_t rows = p.width == 0 ? 0 : p.hidden.size() / p.width;
  BinaryChoicesResult r{.loss = std::vector<double>(rows),
                        .d_logit = std::vector<double>(rows * p.choices),
                        .d_hidden = std::vector<double>(rows * p.width)};
  for (std::size_t n = 0; n < rows; ++n) {
    if (p.choice[n * p.choices] == INT32_MIN) continue;
    ++r.count;
    for (std::size_t c = n * p.choices; c < (n + 1) * p.choices; ++c) {
      if (p.choice[c] == INT32_MIN) continue;
      const bool exists =
          p.choice[c] >= 0 && static_cast<std::size_t>(p.choice[c]) * p.width < p.weight.size();
      const double* const w =
          exists ? &p.weight[static_cast<std::size_t>(p.choice[c]) * p.width] : nullptr;
      double logit = exists ? 0 : std::nan("");
      for (std::size_t e = 0; e < p.width && exists; ++e) logit += p.hidden[n * p.width + e] * w[e];
      const Decision d = decide(logit, p.answer[c] != 0);
      r.loss[n] += d.loss;
      r.d_logit[c] = d.slope;
      for (std::size_t e = 0; e < p.width; ++e) {
        r.d_hidden[n * p.width + e] += exists ? d.slope * w[e] : std::nan("");
      }
    }
    r.sum += r.loss[n];
  }
  return r;
}

}  // namespace carousel::reference
