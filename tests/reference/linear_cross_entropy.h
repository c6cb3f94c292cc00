#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "tests/reference/cross_entropy.h"

namespace carousel::reference {

struct LinearCrossEntropy {
  std::size_t rows = 0, width = 0, vocab = 0;
  std::vector<double> hidden;        // [rows, width]
  std::vector<double> weight;        // [vocab, width]
  std::vector<double> bias;          // [vocab], or empty
  std::vector<std::int32_t> target;  // [rows]; −1: ignored
  double smoothing = 0;
  std::vector<double> row_weight = {};  // [rows], or empty: 1 each
  std::optional<double> denominator = {};
  double term_weight = 1;
};

struct LinearCrossEntropyResult {
  std::vector<double> loss;  // [rows]
  double mean = 0;
  std::int32_t count = 0;
  std::vector<double> d_hidden, d_weight, d_bias;  // of term_weight·mean
  double denominator = 0;
};

inline LinearCrossEntropyResult linear_cross_entropy(const LinearCrossEntropy& in) {
  LinearCrossEntropyResult out;
  for (const std::int32_t word : in.target) out.count += word != -1;
  out.denominator = in.denominator.value_or(out.count);
  const double each = out.denominator == 0 ? 0 : 1.0 / out.denominator;
  const std::vector<double> weight =
      in.row_weight.empty() ? std::vector<double>(in.rows, 1) : in.row_weight;

  CrossEntropy head{.rows = in.rows,
                    .vocab = in.vocab,
                    .logits = {},
                    .target = in.target,
                    .smoothing = in.smoothing,
                    .d_loss = {}};
  for (const double w : weight) head.d_loss.push_back(in.term_weight * w * each);
  for (std::size_t n = 0; n < in.rows; ++n) {
    for (std::size_t v = 0; v < in.vocab; ++v) {
      double logit = in.bias.empty() ? 0 : in.bias[v];
      for (std::size_t h = 0; h < in.width; ++h) {
        logit += in.hidden[n * in.width + h] * in.weight[v * in.width + h];
      }
      head.logits.push_back(logit);
    }
  }
  const CrossEntropyResult g = cross_entropy(head);

  out.loss = g.loss;
  for (std::size_t n = 0; n < in.rows; ++n) out.mean += each * weight[n] * g.loss[n];
  out.d_hidden.assign(in.rows * in.width, 0);
  out.d_weight.assign(in.vocab * in.width, 0);
  out.d_bias.assign(in.vocab, 0);
  for (std::size_t n = 0; n < in.rows; ++n) {
    for (std::size_t v = 0; v < in.vocab; ++v) {
      const double d = g.d_logits[n * in.vocab + v];
      out.d_bias[v] += d;
      for (std::size_t h = 0; h < in.width; ++h) {
        out.d_hidden[n * in.width + h] += d * in.weight[v * in.width + h];
        out.d_weight[v * in.width + h] += d * in.hidden[n * in.width + h];
      }
    }
  }
  return out;
}

}  // namespace carousel::reference
