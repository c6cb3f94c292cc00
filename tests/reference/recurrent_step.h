#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/reference/recurrent_cells.h"

namespace carousel::reference {

using Values = std::vector<double>;

/// What a layer is given; an empty vector is an absent argument. Layouts as in the contract.
struct Layer {
  const Cell* cell = nullptr;
  std::size_t T = 0, B = 0, I = 0, H = 0;
  Values x{}, weight_ih{}, weight_hh{}, bias_ih{}, bias_hh{}, parameter{};
  std::array<Values, 4> initial{};  ///< h0, c0 …
  std::vector<std::int32_t> reset{}, begin{}, end{};
  std::size_t projection = 0, heads = 1;  ///< P, 0 without weight_hr
  Values weight_hr{}, gain{};
  std::array<Values, 4> start{};
  std::vector<std::int32_t> carried{};
  bool reverse = false;
  Values zoneout_h{}, zoneout_c{};  ///< [T, B, H]: how much of the old value stays
  Values candidate{};               ///< [T, B, H]: factors of the candidates
  Values variational{};             ///< [B, P]: factors of ĥ for the product of phase 0
  double cell_limit = std::numeric_limits<double>::infinity();
  double gradient_limit = std::numeric_limits<double>::infinity();

  std::size_t P() const { return projection > 0 ? projection : H; }
  std::size_t width(std::size_t state) const { return state == 0 ? P() : H; }
  bool resets(std::size_t t, std::size_t b) const {
    return !reset.empty() && reset[t * B + b] != 0;
  }
  std::size_t first(std::size_t b) const {
    return begin.empty() ? 0 : static_cast<std::size_t>(begin[b]);
  }
  std::size_t past(std::size_t b) const {
    return end.empty() ? T : static_cast<std::size_t>(end[b]);
  }
  /// The steps of a row, in the order in which they are taken.
  std::vector<std::size_t> steps(std::size_t b) const {
    std::vector<std::size_t> all;
    for (std::size_t t = first(b); t < past(b); ++t) all.push_back(t);
    if (reverse) std::reverse(all.begin(), all.end());
    return all;
  }
  /// Whether a reset lies between step t and the step before it.
  bool cut(std::size_t t, std::size_t b) const {
    return reverse ? t + 1 < past(b) && resets(t + 1, b) : resets(t, b);
  }
  /// Whether a row takes its first value of a state from `start`.
  bool begins_at_start(std::size_t state, std::size_t b) const {
    return initial[state].empty() || (!carried.empty() && carried[b] == 0);
  }
};

struct LayerGradients {
  Values d_x{}, d_weight_ih{}, d_weight_hh{}, d_bias_ih{}, d_bias_hh{}, d_parameter{}, d_gates{};
  std::array<Values, 4> d_initial{};
  Values d_weight_hr{}, d_gain{};
  std::array<Values, 4> d_start{};
};

/// Row n of `width` numbers; zeros of an absent argument.
inline Values row_of(const Values& all, std::size_t n, std::size_t width) {
  if (all.empty()) return Values(width, 0.0);
  const auto begin = all.begin() + static_cast<std::ptrdiff_t>(n * width);
  return {begin, begin + static_cast<std::ptrdiff_t>(width)};
}
inline double at(const Values& all, std::size_t n, double absent) {
  return all.empty() ? absent : all[n];
}

/// (v − mean) / √(variance + 1e-5): Ba, Kiros & Hinton 2016, equation 4.
struct Normalized {
  Values y{};
  double factor = 0;

  Normalized() = default;
  explicit Normalized(const Values& v) : y(v) {
    const double n = static_cast<double>(std::max<std::size_t>(v.size(), 1));
    double mean = 0, variance = 0;
    for (const double a : v) mean += a / n;
    for (const double a : v) variance += (a - mean) * (a - mean) / n;
    factor = 1 / std::sqrt(variance + 1e-5);
    for (double& a : y) a = (a - mean) * factor;
  }
  /// The gradient of v, of that of y.
  Values backward(const Values& d) const {
    const double n = static_cast<double>(std::max<std::size_t>(d.size(), 1));
    double mean = 0, slope = 0;
    for (std::size_t i = 0; i < d.size(); ++i) mean += d[i] / n, slope += d[i] * y[i] / n;
    Values d_v(d.size());
    for (std::size_t i = 0; i < d.size(); ++i) d_v[i] = factor * (d[i] - mean - y[i] * slope);
    return d_v;
  }
};

/// One step of one row: its units with their inputs and outputs, and what each phase multiplied.
class RowStep {
 public:
  RowStep(const Layer& layer, const std::vector<Values>& before, std::size_t t, std::size_t b)
      : p(layer), c(*layer.cell), row(b), n(t * layer.B + b), units(layer.H) {
    take_input(before);
    operands.push_back(before[0]);
    for (std::size_t i = 0; i < p.P(); ++i) operands[0][i] *= at(p.variational, b * p.P() + i, 1);
    for (std::size_t phase = 0; phase < c.phase_begin.size(); ++phase) {
      c.normalized(phase) ? normalize(phase) : multiply(phase);
      out.emplace_back();
      Values operand(p.H);
      for (std::size_t j = 0; j < p.H; ++j) {
        out[phase].push_back(c.unit(phase, units[j]));
        operand[j] = out[phase][j].operand.value;
      }
      operands.push_back(operand);
    }
    for (std::size_t j = 0; j < p.H; ++j) {
      mix(j, 0, at(p.zoneout_h, n * p.H + j, 0));
      if (c.states > 1) mix(j, 1, at(p.zoneout_c, n * p.H + j, 0));
    }
    after.assign(c.states, Values(p.H));
    for (std::size_t s = 0; s < c.states; ++s) {
      for (std::size_t j = 0; j < p.H; ++j) after[s][j] = unit(j).state[s].value;
    }
    if (p.projection == 0) return;
    after[0].assign(p.P(), 0.0);
    for (std::size_t i = 0; i < p.P(); ++i) {
      for (std::size_t j = 0; j < p.H; ++j) {
        after[0][i] += p.weight_hr[i * p.H + j] * unit(j).state[0].value;
      }
    }
  }
  const UnitOutputs& unit(std::size_t j) const { return out.back()[j]; }
  /// The largest factor by which a normalization of more than one number multiplies.
  double steepest() const {
    const auto of = [](const Normalized& sums) {
      const Values& y = sums.y;
      const bool is_zero = std::all_of(y.begin(), y.end(), [](double v) { return v == 0; });
      return y.size() < 2 || is_zero ? 0 : sums.factor;
    };
    const double operand = of_operand.y.size() < 2 ? 0 : of_operand.factor;
    return std::max({of(of_input), of(of_product), operand});
  }
  const Values& state(std::size_t s) const { return after[s]; }

  /// Adds this step's share to d. d_state: in, of the states after; out, of those before.
  void backward(std::vector<Values>& d_state, LayerGradients& d) const {
    std::vector<Derivatives> d_in(p.H);
    const auto add = [&](std::size_t j, double of, const Dual& y) {
      for (std::size_t i = 0; i < y.d.size(); ++i) d_in[j][i] += of * y.d[i];
    };
    const Values d_m = d_projected(d_state[0], d);
    for (std::size_t j = 0; j < p.H; ++j) {
      add(j, d_m[j], unit(j).state[0]);
      for (std::size_t s = 1; s < c.states; ++s) add(j, d_state[s][j], unit(j).state[s]);
    }
    Values d_h;  // what the product of phase 0 brings
    for (std::size_t phase = c.phase_begin.size(); phase-- > 0;) {
      const Values d_operand = c.normalized(phase) ? d_normal(d_in) : d_product(phase, d_in, d);
      if (phase == 0) d_h = d_operand;
      for (std::size_t j = 0; phase > 0 && j < p.H; ++j) {
        add(j, d_operand[j], out[phase - 1][j].operand);
      }
    }
    d_input(d_in, d);
    d_state[0].assign(p.P(), 0.0);
    for (std::size_t j = 0; j < p.H; ++j) {
      for (std::size_t k = 0; k < c.parameters; ++k) {
        d.d_parameter[k * p.H + j] += d_in[j][kOfParameter + k];
      }
      for (std::size_t s = 0; s < c.states; ++s) {
        if (s > 0 || p.projection == 0) d_state[s][j] = d_in[j][kOfBefore + s];
      }
    }
    for (std::size_t i = 0; i < p.P(); ++i) {
      d_state[0][i] += d_h[i] * at(p.variational, row * p.P() + i, 1);
    }
  }

 private:
  void take_input(const std::vector<Values>& before) {
    Values sums(c.gates * p.H, 0.0);
    for (std::size_t r = 0; r < sums.size(); ++r) {
      for (std::size_t i = 0; i < p.I; ++i) sums[r] += p.weight_ih[r * p.I + i] * p.x[n * p.I + i];
    }
    if (!p.gain.empty()) sums = (of_input = Normalized(sums)).y;
    for (std::size_t j = 0; j < p.H; ++j) {
      UnitInputs& in = units[j];
      for (std::size_t k = 0; k < c.gates; ++k) {
        const std::size_t r = k * p.H + j;
        in.x[k] = variable(sums[r] * at(p.gain, r, 1) + at(p.bias_ih, r, 0), kOfX + k);
      }
      for (std::size_t s = 0; s < c.states; ++s) {
        if (s > 0 || p.projection == 0) in.before[s] = variable(before[s][j], kOfBefore + s);
      }
      for (std::size_t k = 0; k < c.parameters; ++k) {
        in.p[k] = variable(p.parameter[k * p.H + j], kOfParameter + k);
      }
      in.candidate_scale = at(p.candidate, n * p.H + j, 1);
      in.cell_limit = p.cell_limit;
    }
  }

  /// The columns of W_hh that unit j of a gate sees: first and count.
  std::size_t head_width() const { return p.P() / p.heads; }
  std::size_t head_begin(std::size_t j) const { return j / (p.H / p.heads) * head_width(); }

  void multiply(std::size_t phase) {
    const std::size_t columns = c.gates * p.H, width = head_width();
    Values sums(columns, 0.0);
    for (std::size_t r = c.phase_begin[phase] * p.H; r < c.phase_end(phase) * p.H; ++r) {
      for (std::size_t i = 0; i < width && !p.weight_hh.empty(); ++i) {
        sums[r] += p.weight_hh[r * width + i] * operands[phase][head_begin(r % p.H) + i];
      }
    }
    if (!p.gain.empty()) sums = (of_product = Normalized(sums)).y;
    for (std::size_t r = c.phase_begin[phase] * p.H; r < c.phase_end(phase) * p.H; ++r) {
      const double u = sums[r] * at(p.gain, columns + r, 1) + at(p.bias_hh, r, 0);
      units[r % p.H].u[r / p.H] = variable(u, kOfU + r / p.H);
    }
  }
  void normalize(std::size_t phase) {
    of_operand = Normalized(operands[phase]);
    for (std::size_t j = 0; j < p.H; ++j) units[j].normal = variable(of_operand.y[j], kOfNormal);
  }
  void mix(std::size_t j, std::size_t s, double old) {
    Dual& state = out.back()[j].state[s];
    if (old > 0) state = old * units[j].before[s] + (1 - old) * state;
  }

  double clipped(double d) const { return std::clamp(d, -p.gradient_limit, p.gradient_limit); }

  /// Of m, where h = W_hr·m.
  Values d_projected(const Values& d_h, LayerGradients& d) const {
    if (p.projection == 0) return d_h;
    Values d_m(p.H, 0.0);
    for (std::size_t i = 0; i < p.P(); ++i) {
      for (std::size_t j = 0; j < p.H; ++j) {
        d.d_weight_hr[i * p.H + j] += d_h[i] * unit(j).state[0].value;
        d_m[j] += p.weight_hr[i * p.H + j] * d_h[i];
      }
    }
    return d_m;
  }
  Values d_normal(const std::vector<Derivatives>& d_in) const {
    Values d_y(p.H);
    for (std::size_t j = 0; j < p.H; ++j) d_y[j] = d_in[j][kOfNormal];
    return of_operand.backward(d_y);
  }
  Values d_product(std::size_t phase, const std::vector<Derivatives>& d_in,
                   LayerGradients& d) const {
    const std::size_t columns = c.gates * p.H, width = head_width();
    Values d_v(columns, 0.0), d_operand(operands[phase].size(), 0.0);
    for (std::size_t r = c.phase_begin[phase] * p.H; r < c.phase_end(phase) * p.H; ++r) {
      const double d_u = clipped(d_in[r % p.H][kOfU + r / p.H]);
      if (c.multiplies) d.d_bias_hh[r] += d_u;
      if (!p.gain.empty()) d.d_gain[columns + r] += d_u * of_product.y[r];
      d_v[r] = d_u * at(p.gain, columns + r, 1);
    }
    if (!p.gain.empty()) d_v = of_product.backward(d_v);
    for (std::size_t r = c.phase_begin[phase] * p.H; r < c.phase_end(phase) * p.H; ++r) {
      for (std::size_t i = 0; i < width && !p.weight_hh.empty(); ++i) {
        const std::size_t from = head_begin(r % p.H) + i;
        d.d_weight_hh[r * width + i] += d_v[r] * operands[phase][from];
        d_operand[from] += d_v[r] * p.weight_hh[r * width + i];
      }
    }
    return d_operand;
  }
  void d_input(const std::vector<Derivatives>& d_in, LayerGradients& d) const {
    Values d_v(c.gates * p.H);
    for (std::size_t r = 0; r < d_v.size(); ++r) {
      const double d_a = clipped(d_in[r % p.H][kOfX + r / p.H]);
      d.d_gates[n * d_v.size() + r] = d_a;
      d.d_bias_ih[r] += d_a;
      if (!p.gain.empty()) d.d_gain[r] += d_a * of_input.y[r];
      d_v[r] = d_a * at(p.gain, r, 1);
    }
    if (!p.gain.empty()) d_v = of_input.backward(d_v);
    for (std::size_t r = 0; r < d_v.size(); ++r) {
      for (std::size_t i = 0; i < p.I; ++i) {
        d.d_weight_ih[r * p.I + i] += d_v[r] * p.x[n * p.I + i];
        d.d_x[n * p.I + i] += d_v[r] * p.weight_ih[r * p.I + i];
      }
    }
  }

  const Layer& p;
  const Cell& c;
  std::size_t row, n;
  std::vector<UnitInputs> units;
  std::vector<Values> operands{}, after{};
  std::vector<std::vector<UnitOutputs>> out{};
  Normalized of_input{}, of_product{}, of_operand{};
};

}  // namespace carousel::reference
