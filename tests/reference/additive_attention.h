#pragma once

#include <cmath>
#include <cstddef>
#include <vector>

namespace carousel::reference {

/// One row of a batch whose queries look at keys by additive scores.
struct AdditiveRow {
  using Rows = std::vector<std::vector<double>>;
  Rows q, k, v;  ///< of each query, key and value; all keys count
  std::vector<double> score;

  /// v·tanh(q + k) of the papers.
  double alignment(std::size_t t, std::size_t s) const {
    double sum = 0;
    for (std::size_t h = 0; h < score.size(); ++h) sum += score[h] * std::tanh(q[t][h] + k[s][h]);
    return sum;
  }

  std::vector<double> weights(std::size_t t) const {
    std::vector<double> share;
    double all = 0;
    for (std::size_t s = 0; s < k.size(); ++s) {
      share.push_back(std::exp(alignment(t, s) - alignment(t, 0)));
      all += share.back();
    }
    for (double& each : share) each /= all;
    return share;
  }

  /// The context of query t, `columns` wide.
  std::vector<double> context(std::size_t t, std::size_t columns) const {
    const std::vector<double> weight = weights(t);
    std::vector<double> y(columns, 0);
    for (std::size_t s = 0; s < k.size(); ++s) {
      for (std::size_t d = 0; d < columns; ++d) y[d] += weight[s] * v[s][d];
    }
    return y;
  }

  struct Gradients {
    Rows q, k, v;
    std::vector<double> score;
  };
  /// Adds to `d` what query t gives whose context has the gradient d_y. By the chain rule through the
  /// softmax: ∂weight[r]/∂alignment[s] = weight[r]·([r = s] − weight[s]).
  void backward(std::size_t t, const std::vector<double>& d_y, Gradients& d) const {
    const std::vector<double> weight = weights(t);
    for (std::size_t s = 0; s < k.size(); ++s) {
      double d_alignment = 0;
      for (std::size_t r = 0; r < k.size(); ++r) {
        double d_weight = 0;
        for (std::size_t c = 0; c < d_y.size(); ++c) d_weight += d_y[c] * v[r][c];
        d_alignment += d_weight * weight[r] * ((r == s ? 1 : 0) - weight[s]);
      }
      for (std::size_t h = 0; h < score.size(); ++h) {
        const double cosh = std::cosh(q[t][h] + k[s][h]);
        d.score[h] += d_alignment * std::tanh(q[t][h] + k[s][h]);
        d.q[t][h] += d_alignment * score[h] / (cosh * cosh);
        d.k[s][h] += d_alignment * score[h] / (cosh * cosh);
      }
      for (std::size_t c = 0; c < d_y.size(); ++c) d.v[s][c] += weight[s] * d_y[c];
    }
  }
};

}  // namespace carousel::reference
