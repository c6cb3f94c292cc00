#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/view.h"
#include "kernels/weight_update/rules.h"

namespace carousel {

/// One update of weights by an optimiser's rule (Sgd, Momentum, Adam, RmsProp or Adagrad, see
/// rules.h):
///
///     g = clamp(gradient · gradient_scale, −clip_value, +clip_value)
///     weight, state = rule(g, weight, state)  with learning_rate · learning_rate_factor
///     working = weight rounded to bf16
///
/// Without `row` the gradient is [V, E] and every weight is updated; a flat buffer is [1, N]. With
/// `row` the gradient is row-sparse: its first row_count[0] rows are those of the weight's rows
/// row[0], row[1], …; these are updated exactly as without `row`, and no other row of weight, state
/// or working is read or written. So moments and momentum of the other rows do not decay in this
/// step and weight decay acts on touched rows alone, as lazy optimisers do (PyTorch's SparseAdam,
/// which has no weight decay; SGD there refuses it).
///
/// Clipping by value comes after scaling and before weight decay. States start at 0, or at what the
/// rule says. T is float, or double on the CPU.
///
/// Values   where finite is 0 nothing at all is written. Otherwise NaN in gradient, scale or
///          learning rate reaches the weights: clamping keeps it. An element whose weight, gradient
///          and states are as at the start, the first two 0, keeps them, so padding between
///          parameters stays 0. The first
///          row_count[0] entries of `row` are distinct and in [0, V), as EmbeddingRowBackward
///          gives them.
/// Errors   ShapeError if the views disagree; ConfigError if a number is out of range. No elements,
///          or row_count[0] == 0: nothing is done.
/// Accuracy within Rule::kTolerance of the exact update, for operands of order 1; working is the
///          weight rounded, exactly. Repeats bit for bit.
/// Memory   reads weight, gradient and states once; writes weight, states and working once: of all
///          rows, or of the row_count[0] touched ones.
/// Source   the rule's.
template <class Rule, class T>
struct WeightUpdate {
  Rule rule{};
  View<T, 2> weight;                              ///< [V, E] in and out
  View<const T, 2> gradient;                      ///< [V, E], or [C, E] with row
  std::array<View<T, 2>, Rule::kStates> state{};  ///< [V, E] each, in and out
  View<bf16, 2> working{};                        ///< [V, E] out; may be absent
  View<const std::int32_t, 1> row{};              ///< [C] absent: every row
  View<const std::int32_t, 1> row_count{};        ///< [1] with row
  View<const T, 1> learning_rate;                 ///< [1]
  View<const std::int64_t, 1> step;               ///< [1] the number of this update, from 1
  View<const T, 1> gradient_scale{};              ///< [1] of global_norm; absent: 1
  View<const std::int32_t, 1> finite{};           ///< [1] of global_norm; absent: 1
  double learning_rate_factor = 1;
  double weight_decay = 0;
  double clip_value = 0;  ///< 0: no clipping
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;

  /// What is the same for all weights of an update; on the device, where step and rate are.
  struct Numbers {
    typename Rule::template Step<T> step;
    T scale, limit;
    bool skip;

    /// One weight and its states.
    template <class... State>
    constexpr void update(T gradient, T& weight, State&... state) const {
      T g = gradient * scale;
      g = g > limit ? limit : g;  // NaN compares false and stays
      g = g < -limit ? -limit : g;
      Rule::update(step, g, weight, state...);
    }
  };
  constexpr Numbers numbers() const {
    const double rate = static_cast<double>(learning_rate.data[0]) * learning_rate_factor;
    return {.step = rule.template at<T>(rate, step.data[0], weight_decay),
            .scale = gradient_scale.present() ? gradient_scale.data[0] : T{1},
            .limit = clip_value == 0 ? static_cast<T>(INFINITY) : static_cast<T>(clip_value),
            .skip = finite.present() && finite.data[0] == 0};
  }
};

/// One step of the running mean of weights, after their update number `step`. With
/// n = step − first + 1, the number of weights in the mean:
///
///     average += (weight − average) / n
///
/// so that after update number k it is (w_first + … + w_k) / (k − first + 1). T is float, or double on
/// the CPU.
///
/// Values   where first is 0 or finite is 0, or step < first, nothing is written. n = 1 is a copy; a
///          NaN in weight or average stays.
/// Errors   ShapeError if the views disagree. No elements: nothing is done.
/// Accuracy of one step, for operands of order 1: kTolerance. What a step adds is lost where it is
///          below half a unit in the last place of the mean, as with the float mean of PyTorch's
///          torch.optim.ASGD: of weights that vary by 1 % after some 10⁵ steps.
/// Memory   reads weight and average once, writes average once.
/// Source   Polyak & Juditsky 1992, SIAM J. Control Optim. 30(4):838, equation 2; as a running mean
///          Merity, Keskar & Socher 2018, arXiv:1708.02182, algorithm 1.
template <class T>
struct WeightAverage {
  static constexpr Tolerance kTolerance{.absolute = 2e-7, .relative = 1e-7, .worst = 0.8};
  View<const T, 1> weight;               ///< [N]
  View<T, 1> average;                    ///< [N] in and out
  View<const std::int64_t, 1> step;      ///< [1] the number of the update before, from 1
  View<const std::int64_t, 1> first;     ///< [1] that of the first weights in the mean; 0: none
  View<const std::int32_t, 1> finite{};  ///< [1] of global_norm; absent: 1
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;

  /// 1 / n, or 0 where nothing is to be written; on the device, where the numbers are.
  constexpr T share() const {
    const bool none = first.data[0] == 0 || step.data[0] < first.data[0] ||
                      (finite.present() && finite.data[0] == 0);
    return none ? T{0} : T{1} / static_cast<T>(step.data[0] - first.data[0] + 1);
  }
  static constexpr void update(T share, T weight, T& average) {
    average = share == T{1} ? weight : average + share * (weight - average);
  }
};

}  // namespace carousel
