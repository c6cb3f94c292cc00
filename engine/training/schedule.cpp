#include "engine/training/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace carousel {

double learning_rate(const Schedule& s, std::int64_t step) {
  if (step <= s.warm_up) {
    return s.learning_rate * static_cast<double>(step) / static_cast<double>(s.warm_up);
  }
  const std::int64_t after = step - s.warm_up;
  if (s.kind == "linear" || s.kind == "cosine") {
    const auto length = static_cast<double>(std::max<std::int64_t>(s.steps - s.warm_up, 1));
    const double done = std::min(static_cast<double>(after) / length, 1.0);
    const double height =
        s.kind == "linear" ? 1 - done : 0.5 * (1 + std::cos(std::numbers::pi * done));
    return s.learning_rate * (s.final_fraction + (1 - s.final_fraction) * height);
  }
  if (s.kind == "inverse_sqrt") {
    const auto from = static_cast<double>(std::max<std::int64_t>(s.warm_up, 1));
    return s.learning_rate * std::sqrt(from / static_cast<double>(step));
  }
  if (s.kind == "step") {
    const std::int64_t onset = s.onset == 0 ? s.period : s.onset;
    const std::int64_t decays = after <= onset ? 0 : (after - 1 - onset) / s.period + 1;
    return s.learning_rate * std::pow(s.decay, static_cast<double>(decays));
  }
  return s.learning_rate;
}

PlateauState updated(PlateauState state, const Schedule& schedule, double loss) {
  if (schedule.kind != "plateau") return state;
  if (loss < state.best) {
    state.best = loss;
    state.bad_evaluations = 0;
  } else if (++state.bad_evaluations >= schedule.patience) {
    state.factor *= schedule.decay;
    state.bad_evaluations = 0;
  }
  return state;
}

}  // namespace carousel
