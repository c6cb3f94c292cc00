#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel::reference {

struct SampledLoss {
  bool noise = false;
  std::size_t rows = 0, words = 0, width = 0;  // N, S, H
  std::vector<double> hidden;                  // [N, H]
  std::vector<double> row;                     // [N + S, H]
  std::vector<double> bias;                    // [N + S]
  std::vector<std::int32_t> candidate;         // [N + S]; below 0: an ignored row
  std::vector<double> log_expected;            // [V]
  double denominator = 1;
};

struct SampledLossResult {
  std::vector<double> loss;  // [N]
  double mean = 0;
  std::vector<double> d_hidden, d_row, d_bias;
};

/// ∂loss of one row by its logits: of the target first, then of the drawn words.
struct SampledRow {
  double loss = 0;
  std::vector<double> slope;
};

/// −log of the target's share of Σ exp, where weight 0 leaves a word out.
inline SampledRow sampled_softmax(const std::vector<double>& logit,
                                  const std::vector<double>& weight) {
  double largest = logit[0], sum = 0;
  for (std::size_t i = 0; i < logit.size(); ++i) {
    if (weight[i] > 0) largest = std::fmax(largest, logit[i]);
  }
  for (std::size_t i = 0; i < logit.size(); ++i) {
    if (weight[i] > 0) sum += std::exp(logit[i] - largest);
  }
  SampledRow result{.loss = largest + std::log(sum) - logit[0], .slope = {}};
  for (std::size_t i = 0; i < logit.size(); ++i) {
    const double share = weight[i] > 0 ? std::exp(logit[i] - largest) / sum : 0;
    result.slope.push_back(share - (i == 0 ? 1 : 0));
  }
  return result;
}

/// −log of the probability of "target" for the first and of "noise" for all others.
inline SampledRow told_from_noise(const std::vector<double>& logit) {
  SampledRow result;
  for (std::size_t i = 0; i < logit.size(); ++i) {
    const double sign = i == 0 ? -1 : 1;
    result.loss += std::log1p(std::exp(sign * logit[i]));
    result.slope.push_back(sign / (1 + std::exp(-sign * logit[i])));
  }
  return result;
}

inline SampledLossResult sampled_loss(const SampledLoss& in) {
  SampledLossResult out;
  out.d_hidden.assign(in.rows * in.width, 0);
  out.d_row.assign(in.row.size(), 0);
  out.d_bias.assign(in.bias.size(), 0);
  for (std::size_t n = 0; n < in.rows; ++n) {
    if (in.candidate[n] < 0) {
      out.loss.push_back(0);
      continue;
    }
    std::vector<std::size_t> place{n};  // of each logit among the candidates
    for (std::size_t s = 0; s < in.words; ++s) place.push_back(in.rows + s);
    std::vector<double> logit, weight;
    for (const std::size_t i : place) {
      double x = in.bias[i];
      for (std::size_t h = 0; h < in.width; ++h) {
        x += in.hidden[n * in.width + h] * in.row[i * in.width + h];
      }
      const bool corrected = i != n || in.noise;
      if (corrected) x -= in.log_expected[static_cast<std::size_t>(in.candidate[i])];
      logit.push_back(x);
      weight.push_back(i == n || in.candidate[i] != in.candidate[n] ? 1 : 0);
    }
    const SampledRow row = in.noise ? told_from_noise(logit) : sampled_softmax(logit, weight);
    out.loss.push_back(row.loss);
    out.mean += row.loss / in.denominator;
    for (std::size_t j = 0; j < place.size(); ++j) {
      const double d = row.slope[j] / in.denominator;
      out.d_bias[place[j]] += d;
      for (std::size_t h = 0; h < in.width; ++h) {
        out.d_hidden[n * in.width + h] += d * in.row[place[j] * in.width + h];
        out.d_row[place[j] * in.width + h] += d * in.hidden[n * in.width + h];
      }
    }
  }
  return out;
}

}  // namespace carousel::reference
