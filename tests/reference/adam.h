#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace carousel::reference {

struct AdamSettings {
  double learning_rate = 0, beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
  double clip_value = 0, gradient_scale = 1;
  bool decoupled = false;
};

/// Algorithm 1 of Kingma & Ba with bias-corrected moments written out, L2 decay or AdamW's.
class AdamOptimizer {
 public:
  AdamOptimizer(const AdamSettings& settings, std::vector<double> start)
      : weight(std::move(start)), m(weight.size()), v(weight.size()), settings_(settings) {}

  /// Another learning rate and scale from now on.
  void set(double learning_rate, double gradient_scale) {
    settings_.learning_rate = learning_rate;
    settings_.gradient_scale = gradient_scale;
  }

  /// The update with number `t`.
  void step(const std::vector<double>& gradient, double t) {
    const AdamSettings& s = settings_;
    for (std::size_t n = 0; n < weight.size(); ++n) {
      double g = gradient[n] * s.gradient_scale;
      if (s.clip_value > 0) g = std::clamp(g, -s.clip_value, s.clip_value);
      if (s.decoupled) {
        weight[n] = weight[n] * (1 - s.learning_rate * s.weight_decay);
      } else {
        g = g + s.weight_decay * weight[n];
      }
      m[n] = s.beta1 * m[n] + (1 - s.beta1) * g;
      v[n] = s.beta2 * v[n] + (1 - s.beta2) * g * g;
      const double m_hat = m[n] / (1 - std::pow(s.beta1, t));
      const double v_hat = v[n] / (1 - std::pow(s.beta2, t));
      weight[n] = weight[n] - s.learning_rate * m_hat / (std::sqrt(v_hat) + s.epsilon);
    }
  }

  std::vector<double> weight, m, v;

 private:
  AdamSettings settings_;
};

}  // namespace carousel::reference
