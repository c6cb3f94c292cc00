#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace carousel::reference {

struct SamplingRules {
  double temperature = 1;
  std::size_t top_k = 0;
  double top_p = 1;
};

/// Token indices, the most probable first, equals by index.
inline std::vector<std::size_t> ranked(const std::vector<double>& logits) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  return order;
}

struct Distribution {
  std::vector<double> probability;  // [V], 0 for tokens that were cut
  double margin = 1;  // how far the sum that ended top-p was from ending it one token elsewhere
};

/// softmax(logits / temperature), sorted, cut after k tokens, cut again where the running sum of
/// what is left reaches p, and made to sum to 1.
inline Distribution distribution(const std::vector<double>& logits, const SamplingRules& rules) {
  const auto order = ranked(logits);
  std::vector<double> p(logits.size());
  for (std::size_t v = 0; v < p.size(); ++v) {
    p[v] = std::exp((logits[v] - logits[order[0]]) / rules.temperature);
  }
  std::size_t kept = rules.top_k == 0 ? p.size() : std::min(rules.top_k, p.size());
  double sum = 0;
  for (std::size_t i = 0; i < kept; ++i) sum += p[order[i]];

  Distribution result{std::vector<double>(p.size()), 1};
  if (rules.top_p < 1) {
    double running = 0;
    std::size_t count = 0;
    while (count == 0 || (count < kept && running < rules.top_p * sum)) {
      running += p[order[count++]];
    }
    const double before = running - p[order[count - 1]];
    result.margin = std::min(std::abs(running / sum - rules.top_p),
                             count == 1 ? 1 : std::abs(before / sum - rules.top_p));
    kept = count;
    sum = running;
  }
  for (std::size_t i = 0; i < kept; ++i) result.probability[order[i]] = p[order[i]] / sum;
  return result;
}

/// How far u is outside the stretch of [0, 1) that belongs to the token: 0 if it is drawn by u.
inline double miss(const std::vector<double>& probability, std::int32_t token, double u) {
  if (token < 0 || static_cast<std::size_t>(token) >= probability.size()) return INFINITY;
  const auto at = static_cast<std::size_t>(token);
  if (probability[at] == 0) return INFINITY;
  const double below = std::accumulate(probability.begin(),
                                       probability.begin() + static_cast<std::ptrdiff_t>(at), 0.0);
  return std::max({0.0, below - u, u - (below + probability[at])});
}

}  // namespace carousel::reference
