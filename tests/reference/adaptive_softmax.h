#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel::reference {

using Numbers = std::vector<double>;

/// One cluster: from `first` on, `words` words, whose logits are weight·(projection·hidden).
struct AdaptiveTail {
  std::size_t first = 0, words = 0, width = 0;
  Numbers projection;  // [width, H]
  Numbers weight;      // [words, width]
};

struct AdaptiveSoftmax {
  std::size_t rows = 0, width = 0, shortlist = 0;
  Numbers hidden;                    // [rows, H]
  Numbers head;                      // [shortlist + clusters, H]
  Numbers bias;                      // [shortlist + clusters], or empty
  std::vector<AdaptiveTail> tails;   // in order of their words
  std::vector<std::int32_t> target;  // [rows]; −1: ignored

  std::size_t vocabulary() const { return tails.back().first + tails.back().words; }
};

struct AdaptiveGradients {
  Numbers hidden, head, bias;
  std::vector<Numbers> projection, weight;  // of each tail
};

/// matrix [R, x.size()] times x.
inline Numbers times(const Numbers& matrix, const Numbers& x) {
  Numbers y(matrix.size() / x.size());
  for (std::size_t r = 0; r < y.size(); ++r) {
    for (std::size_t i = 0; i < x.size(); ++i) y[r] += matrix[r * x.size() + i] * x[i];
  }
  return y;
}

inline Numbers log_softmax(const Numbers& logits) {
  double largest = -INFINITY, sum = 0;
  for (const double x : logits) largest = std::fmax(largest, x);
  for (const double x : logits) sum += std::exp(x - largest);
  Numbers result;
  for (const double x : logits) result.push_back(x - largest - std::log(sum));
  return result;
}

inline Numbers hidden_row(const AdaptiveSoftmax& in, std::size_t n) {
  const auto first = in.hidden.begin() + static_cast<std::ptrdiff_t>(n * in.width);
  return {first, first + static_cast<std::ptrdiff_t>(in.width)};
}

inline Numbers head_log_softmax(const AdaptiveSoftmax& in, const Numbers& x) {
  Numbers logits = times(in.head, x);
  for (std::size_t j = 0; j < in.bias.size(); ++j) logits[j] += in.bias[j];
  return log_softmax(logits);
}

/// log p(w) of every word of row n.
inline Numbers adaptive_log_probabilities(const AdaptiveSoftmax& in, std::size_t n) {
  const Numbers x = hidden_row(in, n), head = head_log_softmax(in, x);
  Numbers result(head.begin(), head.begin() + static_cast<std::ptrdiff_t>(in.shortlist));
  for (std::size_t k = 0; k < in.tails.size(); ++k) {
    const Numbers own = log_softmax(times(in.tails[k].weight, times(in.tails[k].projection, x)));
    for (const double log_p : own) result.push_back(head[in.shortlist + k] + log_p);
  }
  return result;
}

/// Adds what one softmax over matrix·x with this log p and target, times `scale`, gives the
/// gradients.
inline void differentiate(const Numbers& log_p, std::size_t target, double scale,
                          const Numbers& matrix, const Numbers& x, Numbers& d_matrix, Numbers& d_x,
                          Numbers* d_bias = nullptr) {
  for (std::size_t j = 0; j < log_p.size(); ++j) {
    const double d = scale * (std::exp(log_p[j]) - (j == target ? 1 : 0));
    if (d_bias != nullptr && !d_bias->empty()) (*d_bias)[j] += d;
    for (std::size_t i = 0; i < x.size(); ++i) {
      d_matrix[j * x.size() + i] += d * x[i];
      d_x[i] += d * matrix[j * x.size() + i];
    }
  }
}

/// The gradients of scale · Σ_n −log p(target[n]).
inline AdaptiveGradients adaptive_gradients(const AdaptiveSoftmax& in, double scale) {
  AdaptiveGradients out{.hidden = {},
                        .head = Numbers(in.head.size()),
                        .bias = Numbers(in.bias.size()),
                        .projection = {},
                        .weight = {}};
  for (const AdaptiveTail& tail : in.tails) {
    out.projection.emplace_back(tail.projection.size());
    out.weight.emplace_back(tail.weight.size());
  }
  for (std::size_t n = 0; n < in.rows; ++n) {
    const Numbers x = hidden_row(in, n);
    Numbers d_x(in.width);
    if (in.target[n] != -1) {
      const auto word = static_cast<std::size_t>(in.target[n]);
      std::size_t entry = word;
      for (std::size_t k = 0; k < in.tails.size(); ++k) {
        const AdaptiveTail& tail = in.tails[k];
        if (word < tail.first || word >= tail.first + tail.words) continue;
        entry = in.shortlist + k;
        const Numbers z = times(tail.projection, x);
        Numbers d_z(z.size());
        differentiate(log_softmax(times(tail.weight, z)), word - tail.first, scale, tail.weight, z,
                      out.weight[k], d_z);
        for (std::size_t e = 0; e < z.size(); ++e) {
          for (std::size_t i = 0; i < in.width; ++i) {
            out.projection[k][e * in.width + i] += d_z[e] * x[i];
            d_x[i] += d_z[e] * tail.projection[e * in.width + i];
          }
        }
      }
      differentiate(head_log_softmax(in, x), entry, scale, in.head, x, out.head, d_x, &out.bias);
    }
    out.hidden.insert(out.hidden.end(), d_x.begin(), d_x.end());
  }
  return out;
}

}  // namespace carousel::reference
