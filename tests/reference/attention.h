#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <vector>

namespace carousel::reference {

using Rows = std::vector<std::vector<double>>;

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t d = 0; d < a.size(); ++d) sum += a[d] * b[d];
  return sum;
}

/// One head of attention, whose query t sees key s if sees(t, s), adds bias[t][s] to its score and
/// multiplies its weight by mask(t, s).
struct AttentionHead {
  Rows q, k, v;
  double scale = 1;
  Rows bias;  ///< [Tq, Tk]; of no rows: none
  std::function<bool(std::size_t t, std::size_t s)> sees;
  std::function<double(std::size_t t, std::size_t s)> mask;

  double score(std::size_t t, std::size_t s) const {
    return scale * dot(q[t], k[s]) + (bias.empty() ? 0 : bias[t][s]);
  }
  /// Whether exp(score) is not 0.
  bool looks(std::size_t t, std::size_t s) const { return sees(t, s) && score(t, s) > -INFINITY; }

  /// log Σ_s exp(score)
  double lse(std::size_t t) const {
    double top = -INFINITY, sum = 0;
    for (std::size_t s = 0; s < k.size(); ++s) {
      if (looks(t, s)) top = std::max(top, score(t, s));
    }
    for (std::size_t s = 0; s < k.size(); ++s) {
      if (looks(t, s)) sum += std::exp(score(t, s) - top);
    }
    return sum > 0 ? top + std::log(sum) : -INFINITY;
  }

  /// The softmax of the scores that each query sees.
  Rows weights() const {
    Rows result(q.size(), std::vector<double>(k.size(), 0));
    for (std::size_t t = 0; t < q.size(); ++t) {
      const double normaliser = lse(t);
      for (std::size_t s = 0; s < k.size(); ++s) {
        if (looks(t, s)) result[t][s] = std::exp(score(t, s) - normaliser);
      }
    }
    return result;
  }

  Rows output() const {
    const Rows weight = weights();
    Rows y(q.size(), std::vector<double>(q.empty() ? 0 : q[0].size(), 0));
    for (std::size_t t = 0; t < q.size(); ++t) {
      for (std::size_t s = 0; s < k.size(); ++s) {
        if (!sees(t, s)) continue;
        for (std::size_t d = 0; d < y[t].size(); ++d)
          y[t][d] += mask(t, s) * weight[t][s] * v[s][d];
      }
    }
    return y;
  }

  struct Gradients {
    Rows q, k, v;
  };
  /// By the chain rule through softmax: ∂weight[r]/∂score[s] = weight[r]·([r = s] − weight[s]).
  Gradients backward(const Rows& d_y) const {
    const Rows weight = weights();
    const auto zeros = [](const Rows& like) {
      Rows result = like;
      for (auto& row : result) std::fill(row.begin(), row.end(), 0.0);
      return result;
    };
    Gradients d{zeros(q), zeros(k), zeros(v)};
    for (std::size_t t = 0; t < q.size(); ++t) {
      std::vector<double> d_weight(k.size(), 0);
      double mean = 0;
      for (std::size_t s = 0; s < k.size(); ++s) {
        if (!sees(t, s)) continue;
        d_weight[s] = mask(t, s) * dot(d_y[t], v[s]);
        mean += weight[t][s] * d_weight[s];
      }
      for (std::size_t s = 0; s < k.size(); ++s) {
        if (!sees(t, s)) continue;
        const double d_score = weight[t][s] * (d_weight[s] - mean) * scale;
        for (std::size_t c = 0; c < q[t].size(); ++c) {
          d.q[t][c] += d_score * k[s][c];
          d.k[s][c] += d_score * q[t][c];
          d.v[s][c] += mask(t, s) * weight[t][s] * d_y[t][c];
        }
      }
    }
    return d;
  }
};

}  // namespace carousel::reference
