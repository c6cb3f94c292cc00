#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

namespace carousel::reference {

/// An optimiser as its users set it.
struct OptimizerSettings {
  enum class Kind { sgd, adam, rmsprop, adagrad } kind = Kind::sgd;
  double learning_rate = 0, weight_decay = 0, clip_value = 0, gradient_scale = 1;
  double momentum = 0;                                ///< sgd, rmsprop
  bool nesterov = false;                              ///< sgd
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;  ///< adam; epsilon of all but sgd
  bool decoupled = false;                             ///< adam
  double alpha = 0.99;                                ///< rmsprop
  bool centered = false;                              ///< rmsprop
  double rate_decay = 0, initial = 0;                 ///< adagrad
};

/// torch.optim.SGD, one weight after the other, with the buffer made by the first update; algorithm
/// 1 of Kingma & Ba with the bias-corrected moments written out, and L2 decay or AdamW's;
/// torch.optim.RMSprop and torch.optim.Adagrad.
class Optimizer {
 public:
  Optimizer(const OptimizerSettings& settings, std::vector<double> start)
      : weight(std::move(start)),
        state{std::vector<double>(weight.size(), settings.initial),
              std::vector<double>(weight.size()), std::vector<double>(weight.size())},
        s(settings) {}

  /// The update with number `t`, from 1.
  void step(const std::vector<double>& gradient, double t) {
    for (std::size_t n = 0; n < weight.size(); ++n) {
      double g = gradient[n] * s.gradient_scale;
      if (s.clip_value > 0) g = std::clamp(g, -s.clip_value, s.clip_value);
      switch (s.kind) {
        case OptimizerSettings::Kind::sgd:
          sgd(n, g, t);
          break;
        case OptimizerSettings::Kind::adam:
          adam(n, g, t);
          break;
        case OptimizerSettings::Kind::rmsprop:
          rmsprop(n, g);
          break;
        case OptimizerSettings::Kind::adagrad:
          adagrad(n, g, t);
          break;
      }
    }
  }

  std::vector<double> weight;
  /// SGD's buffer; Adam's two moments; RMSProp's mean square, then its buffer and its mean, those
  /// of them that it has; Adagrad's sum.
  std::vector<double> state[3];
  OptimizerSettings s;

 private:
  void sgd(std::size_t n, double g, double t) {
    g = g + s.weight_decay * weight[n];
    if (s.momentum != 0) {
      state[0][n] = t == 1 ? g : s.momentum * state[0][n] + g;
      g = s.nesterov ? g + s.momentum * state[0][n] : state[0][n];
    }
    weight[n] = weight[n] - s.learning_rate * g;
  }

  void adam(std::size_t n, double g, double t) {
    if (s.decoupled) {
      weight[n] = weight[n] * (1 - s.learning_rate * s.weight_decay);
    } else {
      g = g + s.weight_decay * weight[n];
    }
    state[0][n] = s.beta1 * state[0][n] + (1 - s.beta1) * g;
    state[1][n] = s.beta2 * state[1][n] + (1 - s.beta2) * g * g;
    const double m_hat = state[0][n] / (1 - std::pow(s.beta1, t));
    const double v_hat = state[1][n] / (1 - std::pow(s.beta2, t));
    weight[n] = weight[n] - s.learning_rate * m_hat / (std::sqrt(v_hat) + s.epsilon);
  }

  void rmsprop(std::size_t n, double g) {
    g = g + s.weight_decay * weight[n];
    double& square = state[0][n];
    square = s.alpha * square + (1 - s.alpha) * g * g;
    double variance = square;
    if (s.centered) {
      double& mean = state[s.momentum != 0 ? 2 : 1][n];
      mean = s.alpha * mean + (1 - s.alpha) * g;
      variance = square - mean * mean;
    }
    double update = g / (std::sqrt(variance) + s.epsilon);
    if (s.momentum != 0) {
      state[1][n] = s.momentum * state[1][n] + update;
      update = state[1][n];
    }
    weight[n] = weight[n] - s.learning_rate * update;
  }

  void adagrad(std::size_t n, double g, double t) {
    g = g + s.weight_decay * weight[n];
    state[0][n] = state[0][n] + g * g;
    const double rate = s.learning_rate / (1 + (t - 1) * s.rate_decay);
    weight[n] = weight[n] - rate * g / (std::sqrt(state[0][n]) + s.epsilon);
  }
};

}  // namespace carousel::reference
