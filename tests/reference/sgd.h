#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace carousel::reference {

struct SgdSettings {
  double learning_rate = 0, momentum = 0, weight_decay = 0, clip_value = 0, gradient_scale = 1;
  bool nesterov = false;
};

/// torch.optim.SGD, one parameter after the other, with the buffer made by the first update.
class SgdOptimizer {
 public:
  SgdOptimizer(const SgdSettings& settings, std::vector<double> start)
      : weight(std::move(start)), settings_(settings) {}

  void step(const std::vector<double>& gradient) {
    const SgdSettings& s = settings_;
    if (updates_++ == 0) velocity.assign(weight.size(), 0);
    for (std::size_t n = 0; n < weight.size(); ++n) {
      double g = gradient[n] * s.gradient_scale;
      if (s.clip_value > 0) g = std::clamp(g, -s.clip_value, s.clip_value);
      g = g + s.weight_decay * weight[n];
      if (s.momentum != 0) {
        velocity[n] = updates_ == 1 ? g : s.momentum * velocity[n] + g;
        g = s.nesterov ? g + s.momentum * velocity[n] : velocity[n];
      }
      weight[n] = weight[n] - s.learning_rate * g;
    }
  }

  std::vector<double> weight, velocity;

 private:
  SgdSettings settings_;
  int updates_ = 0;
};

}  // namespace carousel::reference
