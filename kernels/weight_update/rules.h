#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/common/tolerance.h"

namespace carousel {

// The update rules of the optimisers: pointwise mathematics, one text for host and device. A rule
// is a struct of hyperparameters with
//
//     kStates, kStateNames   its states, one number each per weight, named as PyTorch names them
//     kTolerance             of weights and states after one update, float, operands of order 1
//     initial_state          what states begin with; without it 0
//     check()                ConfigError if a hyperparameter is out of range
//     Step<T>, at<T>()       what is the same for all weights of an update
//     update()               one weight and its states, by the clipped gradient g
//
// A new optimiser is a rule here, its instantiations in weight_update_{cpu.cpp,cuda.cu}, a line in
// engine/training/optimizer.cpp, and a row in the tables of test and benchmark cases.

/// 1 − betaᵗ, by repeated squaring: t rounding errors at most, which betaᵗ shrinks faster than they
/// grow. Only products, so that every device gets the same bits. NaN for t < 1.
constexpr double bias_correction(double beta, std::int64_t t) {
  if (t < 1) return std::numeric_limits<double>::quiet_NaN();
  double power = 1;
  for (double square = beta; t != 0; t /= 2, square *= square) {
    if (t % 2 != 0) power *= square;
  }
  return 1 - power;
}

/// Stochastic gradient descent:
///
///     weight −= learning_rate · (g + weight_decay · weight)
struct Sgd {
  static constexpr std::size_t kStates = 0;
  static constexpr std::array<const char*, kStates> kStateNames{};
  static constexpr Tolerance kTolerance{.absolute = 4e-7, .relative = 1e-7, .worst = 0.56};
  void check() const {}

  template <class T>
  struct Step {
    T rate, decay;
  };
  template <class T>
  constexpr Step<T> at(double rate, std::int64_t, double weight_decay) const {
    return {static_cast<T>(rate), static_cast<T>(weight_decay)};
  }
  template <class T>
  static constexpr void update(const Step<T>& s, T g, T& weight) {
    g += s.decay * weight;
    weight -= s.rate * g;
  }
};

/// SGD with momentum; b starts from 0, which is what PyTorch's "no buffer yet" amounts to:
///
///     b = momentum · b + g + weight_decay · weight
///     weight −= learning_rate · b        nesterov: learning_rate · (g + … + momentum · b)
///
/// Source: Sutskever, Martens, Dahl & Hinton 2013, ICML 28(3):1139, section 2 (both momenta, with
/// the learning rate outside the buffer as in PyTorch's torch.optim.SGD).
struct Momentum {
  double momentum = 0.9;  ///< in (0, ∞)
  bool nesterov = false;
  static constexpr std::size_t kStates = 1;
  static constexpr std::array<const char*, kStates> kStateNames{"momentum_buffer"};
  static constexpr Tolerance kTolerance = Sgd::kTolerance;
  void check() const;

  template <class T>
  struct Step {
    T rate, decay, momentum;
    bool nesterov;
  };
  template <class T>
  constexpr Step<T> at(double rate, std::int64_t, double weight_decay) const {
    return {static_cast<T>(rate), static_cast<T>(weight_decay), static_cast<T>(momentum), nesterov};
  }
  template <class T>
  static constexpr void update(const Step<T>& s, T g, T& weight, T& velocity) {
    g += s.decay * weight;
    const T b = s.momentum * velocity + g;
    velocity = b;
    weight -= s.rate * (s.nesterov ? g + s.momentum * b : b);
  }
};

/// Adam or, if decoupled, AdamW. With t = the number of the update:
///
///     Adam:  g += weight_decay · weight        AdamW:  weight −= learning_rate · weight_decay · weight
///     m = beta1 · m + (1 − beta1) · g
///     v = beta2 · v + (1 − beta2) · g²
///     weight −= learning_rate / (1 − beta1ᵗ) · m / (√v / √(1 − beta2ᵗ) + epsilon)
///
/// The bias corrections are computed in double, with a relative error below 10⁻¹² for
/// 1 − beta ≥ 10⁻³, before they are rounded to T. t < 1 makes every weight NaN.
///
/// Source: Kingma & Ba 2015, arXiv:1412.6980, algorithm 1; Loshchilov & Hutter 2019,
/// arXiv:1711.05101, algorithm 2 (AdamW), with the learning rate on the decay as in PyTorch's
/// torch.optim.AdamW.
struct Adam {
  double beta1 = 0.9, beta2 = 0.999;  ///< in [0, 1)
  double epsilon = 1e-8;              ///< positive, as a float too
  bool decoupled = false;             ///< AdamW
  static constexpr std::size_t kStates = 2;
  static constexpr std::array<const char*, kStates> kStateNames{"exp_avg", "exp_avg_sq"};
  static constexpr Tolerance kTolerance{.absolute = 2e-7, .relative = 2e-7, .worst = 0.39};
  void check() const;

  template <class T>
  struct Step {
    T keep, decay, beta1, rest1, beta2, rest2;
    T size;  ///< learning_rate / (1 − beta1ᵗ)
    T root;  ///< 1 / √(1 − beta2ᵗ)
    T epsilon;
  };
  template <class T>
  constexpr Step<T> at(double rate, std::int64_t t, double weight_decay) const {
    return {.keep = static_cast<T>(decoupled ? rate * weight_decay : 0.0),
            .decay = static_cast<T>(decoupled ? 0.0 : weight_decay),
            .beta1 = static_cast<T>(beta1),
            .rest1 = static_cast<T>(1 - beta1),
            .beta2 = static_cast<T>(beta2),
            .rest2 = static_cast<T>(1 - beta2),
            .size = static_cast<T>(rate / bias_correction(beta1, t)),
            .root = static_cast<T>(1 / std::sqrt(bias_correction(beta2, t))),
            .epsilon = static_cast<T>(epsilon)};
  }
  template <class T>
  static constexpr void update(const Step<T>& s, T g, T& weight, T& m, T& v) {
    g += s.decay * weight;
    m = s.beta1 * m + s.rest1 * g;
    v = s.beta2 * v + s.rest2 * (g * g);
    weight -= s.keep * weight + s.size * (m / (std::sqrt(v) * s.root + s.epsilon));
  }
};

/// RMSProp, with a mean of the gradients if `centered` and a buffer if `with_momentum`:
///
///     g += weight_decay · weight
///     v = alpha · v + (1 − alpha) · g²
///     m = alpha · m + (1 − alpha) · g            centered; otherwise m is 0
///     u = g / (√(v − m²) + epsilon)
///     b = momentum · b + u                       with_momentum; otherwise b is u
///     weight −= learning_rate · b
///
/// v − m² is a variance. Where rounding makes it negative, it counts as 0; where it is small beside
/// v, it has few correct digits, and so has the update.
///
/// Source: Tieleman & Hinton 2012, COURSERA: Neural Networks for Machine Learning, lecture 6e;
/// Graves 2013, arXiv:1308.0850, equations 38 to 41 (centered); where epsilon and the learning rate
/// stand is as in PyTorch's torch.optim.RMSprop.
template <bool centered, bool with_momentum>
struct RmsProp {
  double alpha = 0.99;    ///< in [0, 1)
  double epsilon = 1e-8;  ///< positive, as a float too
  double momentum = 0;    ///< in (0, ∞) with_momentum
  static constexpr std::size_t kStates = 1 + with_momentum + centered;
  static constexpr std::array<const char*, kStates> kStateNames = [] {
    std::array<const char*, kStates> names{"square_avg"};
    if (with_momentum) names[1] = "momentum_buffer";
    if (centered) names[kStates - 1] = "grad_avg";
    return names;
  }();
  static constexpr Tolerance kTolerance{.absolute = 3e-5, .relative = 6e-6, .worst = 0.75};
  void check() const;

  template <class T>
  struct Step {
    T rate, decay, alpha, rest, epsilon, momentum;
  };
  template <class T>
  constexpr Step<T> at(double rate, std::int64_t, double weight_decay) const {
    return {.rate = static_cast<T>(rate),
            .decay = static_cast<T>(weight_decay),
            .alpha = static_cast<T>(alpha),
            .rest = static_cast<T>(1 - alpha),
            .epsilon = static_cast<T>(epsilon),
            .momentum = static_cast<T>(momentum)};
  }
  template <class T, class... More>
  static constexpr void update(const Step<T>& s, T g, T& weight, T& v, More&... more) {
    g += s.decay * weight;
    v = s.alpha * v + s.rest * (g * g);
    if constexpr (centered) {
      descend(s, g, weight, v, more...);
    } else {
      move(s, g / (std::sqrt(v) + s.epsilon), weight, more...);
    }
  }

 private:
  /// Centered: the mean is the last state, after the buffer if there is one.
  template <class T>
  static constexpr void descend(const Step<T>& s, T g, T& weight, T v, T& mean) {
    move(s, g / (deviation(s, g, v, mean) + s.epsilon), weight);
  }
  template <class T>
  static constexpr void descend(const Step<T>& s, T g, T& weight, T v, T& buffer, T& mean) {
    move(s, g / (deviation(s, g, v, mean) + s.epsilon), weight, buffer);
  }
  template <class T>
  static constexpr T deviation(const Step<T>& s, T g, T v, T& mean) {
    mean = s.alpha * mean + s.rest * g;
    const T variance = v - mean * mean;
    return std::sqrt(variance < T{0} ? T{0} : variance);  // NaN compares false and stays
  }
  template <class T>
  static constexpr void move(const Step<T>& s, T u, T& weight) {
    weight -= s.rate * u;
  }
  template <class T>
  static constexpr void move(const Step<T>& s, T u, T& weight, T& buffer) {
    buffer = s.momentum * buffer + u;
    weight -= s.rate * buffer;
  }
};

/// Adagrad. With t = the number of the update:
///
///     g += weight_decay · weight
///     sum += g²
///     weight −= learning_rate / (1 + (t − 1) · rate_decay) · g / (√sum + epsilon)
///
/// t < 1 makes every weight NaN.
///
/// Source: Duchi, Hazan & Singer 2011, JMLR 12:2121, figure 1 with diagonal matrices; rate_decay and
/// where epsilon stands are those of PyTorch's torch.optim.Adagrad.
struct Adagrad {
  double epsilon = 1e-10;    ///< positive, as a float too
  double rate_decay = 0;     ///< at least 0
  double initial_state = 0;  ///< at least 0
  static constexpr std::size_t kStates = 1;
  static constexpr std::array<const char*, kStates> kStateNames{"sum"};
  static constexpr Tolerance kTolerance{.absolute = 2e-7, .relative = 2e-7, .worst = 0.67};
  void check() const;

  template <class T>
  struct Step {
    T rate, decay, epsilon;
  };
  template <class T>
  constexpr Step<T> at(double rate, std::int64_t t, double weight_decay) const {
    const double updates =
        t < 1 ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(t - 1);
    return {.rate = static_cast<T>(rate / (1 + updates * rate_decay)),
            .decay = static_cast<T>(weight_decay),
            .epsilon = static_cast<T>(epsilon)};
  }
  template <class T>
  static constexpr void update(const Step<T>& s, T g, T& weight, T& sum) {
    g += s.decay * weight;
    sum += g * g;
    weight -= s.rate * (g / (std::sqrt(sum) + s.epsilon));
  }
};

}  // namespace carousel
