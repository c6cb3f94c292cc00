#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/recurrent_sequence/recurrent_sequence.h"
#include "tests/kernels/two_phase_cell.h"
#include "tests/reference/recurrent_sequence.h"

namespace carousel::test {

using reference::Values;

/// Every cell of the table, and the tests' own. Under ThreadSanitizer one of one phase and one of
/// two: the order of memory is the loop's and no cell's.
inline std::vector<CellKind> tested_cells() {
#ifdef __SANITIZE_THREAD__
  return {cell_kind("lstm"), &TwoPhase::kInfo};
#endif
  std::vector<CellKind> all(cell_kinds().begin(), cell_kinds().end());
  all.push_back(&TwoPhase::kInfo);
  return all;
}

/// A layer, what flows into its backward pass, and how its gradients are to be written.
struct RecurrentProblem {
  CellKind cell = nullptr;
  reference::Layer layer{};
  reference::LayerOutputGradients out{};
  std::vector<std::string> accumulate{};  ///< gradients that hold kOld everywhere before
  bool tf32 = false;
  RecurrentOptions options{};  ///< without the step, which lies on the device
  std::int64_t step = 0;

  bool adds(const std::string& gradient) const {
    return std::find(accumulate.begin(), accumulate.end(), gradient) != accumulate.end();
  }
  bool normalizes() const { return !layer.gain.empty() || cell->normalized_phases() > 0; }
  const Tolerances& forward_tolerance() const {
    return normalizes() ? kNormalizedForwardTolerance : kRecurrentForwardTolerance;
  }
  const Tolerances& backward_tolerance() const {
    return normalizes() ? kNormalizedBackwardTolerance : kRecurrentBackwardTolerance;
  }
  bool starts() const { return !layer.start[0].empty(); }
  /// Where nothing is given, only a sequence without `start` and normalization has such a gradient.
  bool wants_d_initial() const {
    return !layer.initial[0].empty() || (!starts() && layer.gain.empty());
  }
};
inline constexpr double kOld = 0.5;

struct RecurrentSize {
  std::size_t T, B, I, H;
};

/// Which optional arguments a random problem has. The bound of `cell_clip` is chosen by the problem.
struct RecurrentParts {
  bool biases = true, state = true, resets = true, d_h = true, d_last = true, ranges = false;
  bool weight_hh = true;
  bool reverse = false, start = false, carried = false;
  bool projection = false, heads = false, gain = false;
  RecurrentOptions options{};
};

inline constexpr std::size_t kStates = kMostStates;

/// The bits that the contract says a forward pass draws.
inline std::vector<std::uint8_t> mask_bits(const RecurrentProblem& p) {
  const RecurrentOptions& o = p.options;
  std::vector<std::uint8_t> bits(p.layer.T * p.layer.B * p.layer.H);
  for (std::size_t n = 0; n < bits.size(); ++n) {
    const auto words = o.source.words(n, p.step);
    const auto bit = [&](std::size_t word, float probability, MaskBit which) {
      return uniform(words[word]) < probability ? static_cast<int>(which) : 0;
    };
    bits[n] = static_cast<std::uint8_t>(bit(0, o.zoneout_h, MaskBit::zoneout_h) |
                                        bit(1, o.zoneout_c, MaskBit::zoneout_c) |
                                        bit(2, o.recurrent_dropout, MaskBit::candidate));
  }
  return bits;
}

/// Tells the oracle what the options of a problem come to.
inline void apply_options(RecurrentProblem& p) {
  const RecurrentOptions& o = p.options;
  const std::vector<std::uint8_t> bits = mask_bits(p);
  const auto values = [&](bool wanted, MaskBit which, double yes, double no) {
    Values all;
    for (std::size_t n = 0; wanted && n < bits.size(); ++n) {
      all.push_back((bits[n] & static_cast<int>(which)) != 0 ? yes : no);
    }
    return all;
  };
  const auto zoneout = [&](float probability, MaskBit which) {
    const double mean = probability;
    return values(mean > 0, which, o.training ? 1 : mean, o.training ? 0 : mean);
  };
  p.layer.zoneout_h = zoneout(o.zoneout_h, MaskBit::zoneout_h);
  p.layer.zoneout_c = zoneout(o.zoneout_c, MaskBit::zoneout_c);
  p.layer.candidate = values(o.training && o.recurrent_dropout > 0, MaskBit::candidate, 0,
                             1 / (1 - static_cast<double>(o.recurrent_dropout)));
  p.layer.variational.clear();
  for (std::size_t n = 0; o.training && o.variational > 0 && n < p.layer.B * p.layer.P(); ++n) {
    const bool dropped = uniform(o.source.words(n, p.step)[3]) < o.variational;
    p.layer.variational.push_back(dropped ? 0 : 1 / (1 - static_cast<double>(o.variational)));
  }
  if (o.cell_clip > 0) p.layer.cell_limit = o.cell_clip;
  if (o.gradient_clip > 0) p.layer.gradient_limit = o.gradient_clip;
}

/// Chooses a bound that some cell states exceed and none comes near: rounding would decide there
/// whether a gradient passes.
inline void choose_cell_clip(RecurrentProblem& p) {
  const auto sizes = [&](double limit) {
    p.layer.cell_limit = limit;
    Values all = reference::forward(p.layer).unclipped;
    for (double& c : all) c = std::abs(c);
    std::sort(all.begin(), all.end());
    return all;
  };
  const Values all = sizes(std::numeric_limits<double>::infinity());
  std::vector<std::pair<double, double>> gaps;  // width, middle
  for (std::size_t i = all.size() / 2; i + 1 < all.size(); ++i) {
    gaps.emplace_back(all[i + 1] - all[i], (all[i + 1] + all[i]) / 2);
  }
  std::sort(gaps.rbegin(), gaps.rend());
  double best = -1;
  for (std::size_t i = 0; i < std::min<std::size_t>(gaps.size(), 6); ++i) {
    const auto limit = static_cast<float>(gaps[i].second);
    const Values now = sizes(limit);
    const auto above = std::upper_bound(now.begin(), now.end(), static_cast<double>(limit));
    if (above == now.begin() || above == now.end()) continue;
    const double margin = std::min(*above - limit, limit - *(above - 1));
    if (margin > best) best = margin, p.options.cell_clip = limit;
  }
  p.layer.cell_limit = p.options.cell_clip;
}

/// 1 / (the least standard deviation of what a problem normalizes), as the contract asks.
inline constexpr double kSteepest = 20;

/// Weights, biases and parameters of at most 1/√H (recurrent ones of half of that where nothing else
/// bounds the state), gains between 1/2 and 1, everything else of at most 1 (a normalizer at least
/// 1/2), each value stored as the contract stores it: T, or Accumulator<T>.
template <class T>
RecurrentProblem random_problem(CellKind cell, const RecurrentSize& size,
                                const RecurrentParts& parts, unsigned seed) {
  const auto [steps, batch, input, width] = size;
  std::mt19937 random(seed);
  const auto draw = [&]<class U>(std::type_identity<U>, std::size_t count, double bound,
                                 double middle = 0) {
    std::uniform_real_distribution<double> uniform(middle - bound, middle + bound);
    Values values(count);
    for (double& v : values) v = static_cast<double>(static_cast<U>(uniform(random)));
    return values;
  };
  constexpr std::type_identity<T> stored{};
  constexpr std::type_identity<Accumulator<T>> wide{};
  const double bound = width == 0 ? 1 : 1 / std::sqrt(static_cast<double>(width));

  const reference::Cell& formulas = reference::cell(cell->name);
  const std::size_t columns = formulas.gates * width;
  RecurrentProblem p{.cell = cell};
  p.layer = {.cell = &formulas, .T = steps, .B = batch, .I = input, .H = width};
  if (parts.projection && width > 0) p.layer.projection = seed % 2 == 0 ? width / 2 + 1 : width + 3;
  const std::size_t hidden = p.layer.P();
  if (parts.heads && width > 1) {
    while (width % ++p.layer.heads != 0) continue;
  }
  p.layer.x = draw(stored, steps * batch * input, 1);
  p.layer.weight_ih = draw(stored, columns * input, bound);
  const bool rectifies = cell->name == "relu" || cell->name == "indrnn";
  const double recurrent_bound = rectifies || cell->name == "linear" ? bound / 2 : bound;
  if (parts.weight_hh && cell->multiplies) {
    p.layer.weight_hh = draw(stored, columns * hidden / p.layer.heads, recurrent_bound);
  }
  // Nothing but zeros would be normalized without input and biases.
  if (parts.biases || (cell->normalized_phases() > 0 && input == 0)) {
    p.layer.bias_ih = draw(wide, columns, bound);
    if (cell->multiplies) p.layer.bias_hh = draw(wide, columns, bound);
  }
  const std::size_t gains = cell->normalizes ? formulas.parameters / 2 : 0;
  p.layer.parameter = draw(wide, gains * width, 0.25, 0.75);
  const Values others = draw(wide, (formulas.parameters - gains) * width, recurrent_bound);
  p.layer.parameter.insert(p.layer.parameter.end(), others.begin(), others.end());
  const auto state = [&](std::size_t k, std::size_t rows) {
    if (k == 2) return draw(wide, rows * width, 0.5, 1);  // sLSTM's normalizer
    return k == 0 ? draw(stored, rows * hidden, 1) : draw(wide, rows * width, 1);
  };
  for (std::size_t k = 0; k < formulas.states; ++k) {
    if (parts.state) p.layer.initial[k] = state(k, batch);
    if (parts.d_last) p.out.d_last[k] = state(k, batch);
    if (parts.start) p.layer.start[k] = state(k, 1);
  }
  if (parts.resets) {
    for (std::size_t n = 0; n < steps * batch; ++n) p.layer.reset.push_back(random() % 4 == 0);
  }
  if (parts.d_h) p.out.d_h = draw(stored, steps * batch * hidden, 1);
  if (p.layer.projection > 0) p.layer.weight_hr = draw(stored, hidden * width, bound);
  if (parts.gain) p.layer.gain = draw(wide, 2 * columns, 0.25, 0.75);
  if (!std::is_same_v<T, Accumulator<T>> && rectifies && !parts.gain) {
    // On one side of the kink, at which the rounding of bf16 would decide.
    for (Values* all :
         {&p.layer.x, &p.layer.weight_ih, &p.layer.weight_hh, &p.layer.bias_ih, &p.layer.bias_hh,
          &p.layer.initial[0], &p.layer.start[0], &p.layer.parameter, &p.layer.weight_hr}) {
      for (double& v : *all) v = std::abs(v) / 4;  // exact, and sums of one sign stay about 1
    }
    for (double& v : p.layer.weight_hh) v = static_cast<double>(static_cast<T>(v * bound));
  }
  if (rectifies && parts.gain) {  // the same for normalized sums, which have both signs
    for (double& v : p.layer.gain) v /= 4;
    for (double& v : p.layer.bias_ih) v += 3;
  }
  for (std::size_t b = 0; parts.ranges && b < batch; ++b) {
    const auto all = static_cast<unsigned>(steps + 1);
    const auto one = static_cast<std::int32_t>(random() % all);
    const auto other = static_cast<std::int32_t>(random() % all);
    p.layer.begin.push_back(b % 2 == 0 ? 0 : std::min(one, other));
    p.layer.end.push_back(std::max(one, other));
  }
  for (std::size_t b = 0; parts.carried && b < batch; ++b) {
    p.layer.carried.push_back(random() % 2 == 0);
  }
  p.layer.reverse = parts.reverse;
  p.options = parts.options;
  p.options.source.seed = seed, p.options.source.stream = 5, p.step = 1000 + seed;
  apply_options(p);
  if (parts.options.cell_clip > 0) choose_cell_clip(p);
  const bool is_steep = p.normalizes() && reference::forward(p.layer).steepest > kSteepest;
  return is_steep && seed < 100'000 ? random_problem<T>(cell, size, parts, seed + 1'000) : p;
}

struct RecurrentSolution {
  reference::LayerStates s;
  reference::LayerGradients d;
};

/// A solution's values and gradients, with their names in the contract.
using Named = std::vector<std::pair<std::string, const Values*>>;
inline Named named(const reference::LayerStates& s) {
  Named all{{"gates", &s.gates}};
  for (std::size_t k = 0; k < kStates; ++k) {
    all.emplace_back("state" + std::to_string(k), &s.state[k]);
    all.emplace_back("last" + std::to_string(k), &s.last[k]);
  }
  return all;
}
inline Named named(const reference::LayerGradients& d) {
  Named all{{"d_gates", &d.d_gates},
            {"d_x", &d.d_x},
            {"d_weight_ih", &d.d_weight_ih},
            {"d_weight_hh", &d.d_weight_hh},
            {"d_bias_ih", &d.d_bias_ih},
            {"d_bias_hh", &d.d_bias_hh},
            {"d_parameter", &d.d_parameter},
            {"d_weight_hr", &d.d_weight_hr},
            {"d_gain", &d.d_gain}};
  for (std::size_t k = 0; k < kStates; ++k) {
    all.emplace_back("d_initial" + std::to_string(k), &d.d_initial[k]);
    all.emplace_back("d_start" + std::to_string(k), &d.d_start[k]);
  }
  return all;
}

/// The oracle's answer to a problem.
inline RecurrentSolution expected(const RecurrentProblem& p) {
  RecurrentSolution want{.s = reference::forward(p.layer), .d = {}};
  want.d = reference::backward(p.layer, want.s, p.out);
  for (const auto& [name, values] : named(want.d)) {
    if (!p.adds(name)) continue;
    for (double& v : const_cast<Values&>(*values)) v += kOld;
  }
  if (!p.wants_d_initial()) want.d.d_initial = {};
  if (!p.starts()) want.d.d_start = {};
  return want;
}

inline const std::vector<std::string>& all_gradients() {
  static const std::vector<std::string> names{
      "d_x",         "d_weight_ih", "d_weight_hh", "d_bias_ih",  "d_bias_hh",  "d_parameter",
      "d_weight_hr", "d_gain",      "d_initial0",  "d_initial1", "d_initial2", "d_initial3",
      "d_start0",    "d_start1",    "d_start2",    "d_start3"};
  return names;
}

/// "two_phase", for names of tests.
inline std::string test_name(CellKind cell) {
  std::string name(cell->name);
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}

}  // namespace carousel::test
