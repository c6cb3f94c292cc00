#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace carousel::reference {

/// An optimiser as its users set it: kind is sgd (with or without momentum) or adam.
struct OptimizerSettings {
  enum class Kind { sgd, adam } kind = Kind::sgd;
  double learning_rate = 0, weight_decay = 0, clip_value = 0, gradient_scale = 1;
  double momentum = 0;
  bool nesterov = false;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  bool decoupled = false;
};

/// torch.optim.SGD, one weight after the other, with the buffer made by the first update; algorithm
/// 1 of Kingma & Ba with the bias-corrected moments written out, and L2 decay or AdamW's.
class Optimizer {
 public:
  Optimizer(const OptimizerSettings& settings, std::vector<double> start)
      : weight(std::move(start)), first(weight.size()), second(weight.size()), s(settings) {}

  /// The update with number `t`, from 1.
  void step(const std::vector<double>& gradient, double t) {
    for (std::size_t n = 0; n < weight.size(); ++n) {
      double g = gradient[n] * s.gradient_scale;
      if (s.clip_value > 0) g = std::clamp(g, -s.clip_value, s.clip_value);
      if (s.kind == OptimizerSettings::Kind::sgd) {
        sgd(n, g, t);
      } else {
        adam(n, g, t);
      }
    }
  }

  std::vector<double> weight;
  std::vector<double> first, second;  ///< SGD's buffer; Adam's two moments
  OptimizerSettings s;

 private:
  void sgd(std::size_t n, double g, double t) {
    g = g + s.weight_decay * weight[n];
    if (s.momentum != 0) {
      first[n] = t == 1 ? g : s.momentum * first[n] + g;
      g = s.nesterov ? g + s.momentum * first[n] : first[n];
    }
    weight[n] = weight[n] - s.learning_rate * g;
  }

  void adam(std::size_t n, double g, double t) {
    if (s.decoupled) {
      weight[n] = weight[n] * (1 - s.learning_rate * s.weight_decay);
    } else {
      g = g + s.weight_decay * weight[n];
    }
    first[n] = s.beta1 * first[n] + (1 - s.beta1) * g;
    second[n] = s.beta2 * second[n] + (1 - s.beta2) * g * g;
    const double m_hat = first[n] / (1 - std::pow(s.beta1, t));
    const double v_hat = second[n] / (1 - std::pow(s.beta2, t));
    weight[n] = weight[n] - s.learning_rate * m_hat / (std::sqrt(v_hat) + s.epsilon);
  }
};

}  // namespace carousel::reference
