#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace carousel::reference {

/// A number and its derivatives by everything that enters one unit of a cell.
struct Dual {
  double value = 0;
  std::array<double, 16> d{};
};
inline Dual chain(double value, double slope, const Dual& a) {
  Dual y{value};
  for (std::size_t i = 0; i < y.d.size(); ++i) y.d[i] = slope * a.d[i];
  return y;
}
inline Dual operator+(const Dual& a, const Dual& b) {
  Dual y{a.value + b.value};
  for (std::size_t i = 0; i < y.d.size(); ++i) y.d[i] = a.d[i] + b.d[i];
  return y;
}
inline Dual operator*(const Dual& a, const Dual& b) {
  Dual y{a.value * b.value};
  for (std::size_t i = 0; i < y.d.size(); ++i) y.d[i] = a.d[i] * b.value + a.value * b.d[i];
  return y;
}
inline Dual operator-(const Dual& a, const Dual& b) { return a + chain(-b.value, -1, b); }
inline Dual one() { return {1}; }
inline Dual logistic(const Dual& a) {
  const double y = 1 / (1 + std::exp(-a.value));
  return chain(y, y * (1 - y), a);
}
inline Dual tanh(const Dual& a) {
  const double y = std::tanh(a.value);
  return chain(y, 1 - y * y, a);
}

/// What enters a unit: the input's part and the recurrent part of each gate, states, parameters.
struct UnitInputs {
  std::array<Dual, 4> x{}, u{}, before{}, p{};
};
struct UnitOutputs {
  std::vector<Dual> gate{}, state{};
  Dual operand{};  ///< of the next phase's product
};

/// A cell by its formulas alone: phase p, of x, of the recurrent parts u up to that phase's, and of
/// the rest. The last phase gives gates and states, an earlier one what the next one multiplies.
struct Cell {
  std::string_view name;
  std::size_t gates, states, parameters;
  std::vector<std::size_t> phase_begin;  ///< first gate of each phase's recurrent part
  UnitOutputs (*unit)(std::size_t phase, const UnitInputs& in);

  std::size_t phase_end(std::size_t p) const {
    return p + 1 < phase_begin.size() ? phase_begin[p + 1] : gates;
  }
};

/// Hochreiter & Schmidhuber 1997 with the forget gate of Gers, Schmidhuber & Cummins 2000.
inline UnitOutputs lstm(std::size_t, const UnitInputs& in) {
  const auto& [x, u, before, p] = in;
  const Dual i = logistic(x[0] + u[0]), f = logistic(x[1] + u[1]);
  const Dual g = tanh(x[2] + u[2]), o = logistic(x[3] + u[3]);
  const Dual c = f * before[1] + i * g;
  return {.gate = {i, f, g, o}, .state = {o * tanh(c), c}};
}

/// Cho et al. 2014, with PyTorch's reset after the product.
inline UnitOutputs gru(std::size_t, const UnitInputs& in) {
  const auto& [x, u, before, p] = in;
  const Dual r = logistic(x[0] + u[0]), z = logistic(x[1] + u[1]), n = tanh(x[2] + r * u[2]);
  return {.gate = {r, z, n}, .state = {(one() - z) * n + z * before[0]}};
}

/// Elman 1990.
inline UnitOutputs tanh_rnn(std::size_t, const UnitInputs& in) {
  const Dual h = tanh(in.x[0] + in.u[0]);
  return {.gate = {h}, .state = {h}};
}
inline UnitOutputs relu_rnn(std::size_t, const UnitInputs& in) {
  const Dual a = in.x[0] + in.u[0], h = a.value > 0 ? a : Dual{};
  return {.gate = {h}, .state = {h}};
}
inline UnitOutputs linear_rnn(std::size_t, const UnitInputs& in) {
  const Dual h = in.x[0] + in.u[0];
  return {.gate = {h}, .state = {h}};
}

/// The tests' own cell, tests/kernels/two_phase_cell.h.
inline UnitOutputs two_phase(std::size_t phase, const UnitInputs& in) {
  const auto& [x, u, before, p] = in;
  const Dual h = before[0], c = before[1];
  const Dual r = logistic(x[0] + u[0] + p[0] * c), z = logistic(x[1] + u[1] + p[1] * c);
  if (phase == 0) return {.operand = r * h};
  const Dual n = tanh(x[2] + z * u[2]), c_new = c + z * (n - c);
  return {.gate = {r, z, n}, .state = {z * h + (one() - z) * tanh(c_new), c_new}};
}

inline const Cell& cell(std::string_view name) {
  static const std::vector<Cell> table{
      {"lstm", 4, 2, 0, {0}, lstm},         {"gru", 3, 1, 0, {0}, gru},
      {"tanh", 1, 1, 0, {0}, tanh_rnn},     {"relu", 1, 1, 0, {0}, relu_rnn},
      {"linear", 1, 1, 0, {0}, linear_rnn}, {"two-phase", 3, 2, 2, {0, 2}, two_phase},
  };
  for (const Cell& row : table) {
    if (row.name == name) return row;
  }
  return table.at(table.size());  // throws: the oracle has no such cell
}

using Values = std::vector<double>;

/// What a layer is given; an empty vector is an absent argument. Layouts as in the contract.
struct Layer {
  const Cell* cell = nullptr;
  std::size_t T = 0, B = 0, I = 0, H = 0;
  Values x{}, weight_ih{}, weight_hh{}, bias_ih{}, bias_hh{}, parameter{};
  std::array<Values, 4> initial{};  ///< h0, c0 …
  std::vector<std::int32_t> reset{}, begin{}, end{};

  bool resets(std::size_t t, std::size_t b) const {
    return !reset.empty() && reset[t * B + b] != 0;
  }
  std::size_t first(std::size_t b) const {
    return begin.empty() ? 0 : static_cast<std::size_t>(begin[b]);
  }
  std::size_t past(std::size_t b) const {
    return end.empty() ? T : static_cast<std::size_t>(end[b]);
  }
};

struct LayerStates {
  std::array<Values, 4> state{}, last{};  ///< [T, B, H], [B, H]
  Values gates{};
};

/// Gradients of what leaves a layer; empty: zero.
struct LayerOutputGradients {
  Values d_h{};
  std::array<Values, 4> d_last{};
};

struct LayerGradients {
  Values d_x{}, d_weight_ih{}, d_weight_hh{}, d_bias_ih{}, d_bias_hh{}, d_parameter{}, d_gates{};
  std::array<Values, 4> d_initial{};
};

/// One step of one row: its units with their inputs and outputs, and what each phase multiplied.
class RowStep {
 public:
  RowStep(const Layer& layer, const std::vector<Values>& before, std::size_t t, std::size_t b)
      : p(layer), c(*layer.cell), n((t * layer.B + b)), units(layer.H) {
    for (std::size_t j = 0; j < p.H; ++j) {
      UnitInputs& in = units[j];
      for (std::size_t k = 0; k < c.gates; ++k) {
        double sum = p.bias_ih.empty() ? 0 : p.bias_ih[k * p.H + j];
        for (std::size_t i = 0; i < p.I; ++i) {
          sum += p.weight_ih[(k * p.H + j) * p.I + i] * p.x[n * p.I + i];
        }
        in.x[k] = variable(sum, k);
      }
      for (std::size_t s = 0; s < c.states; ++s) in.before[s] = variable(before[s][j], 8 + s);
      for (std::size_t k = 0; k < c.parameters; ++k) {
        in.p[k] = variable(p.parameter[k * p.H + j], 12 + k);
      }
    }
    operands.push_back(before[0]);
    for (std::size_t phase = 0; phase < c.phase_begin.size(); ++phase) {
      out.emplace_back();
      Values operand(p.H);
      for (std::size_t j = 0; j < p.H; ++j) {
        for (std::size_t k = c.phase_begin[phase]; k < c.phase_end(phase); ++k) {
          double sum = p.bias_hh.empty() ? 0 : p.bias_hh[k * p.H + j];
          for (std::size_t i = 0; i < p.H && !p.weight_hh.empty(); ++i) {
            sum += p.weight_hh[(k * p.H + j) * p.H + i] * operands[phase][i];
          }
          units[j].u[k] = variable(sum, 4 + k);
        }
        out[phase].push_back(c.unit(phase, units[j]));
        operand[j] = out[phase][j].operand.value;
      }
      operands.push_back(operand);
    }
  }
  const UnitOutputs& unit(std::size_t j) const { return out.back()[j]; }

  /// Adds this step's share to d. d_state: in, of the states after; out, of those before.
  void backward(std::vector<Values>& d_state, LayerGradients& d) const {
    const std::size_t H = p.H;
    std::vector<std::array<double, 16>> d_in(H);
    const auto add = [&](std::size_t j, double of, const Dual& y) {
      for (std::size_t i = 0; i < 16; ++i) d_in[j][i] += of * y.d[i];
    };
    for (std::size_t j = 0; j < H; ++j) {
      for (std::size_t s = 0; s < c.states; ++s) add(j, d_state[s][j], unit(j).state[s]);
    }
    Values d_h(H, 0.0);  // what the product of phase 0 brings
    for (std::size_t phase = c.phase_begin.size(); phase-- > 0;) {
      Values d_operand(H, 0.0);
      for (std::size_t k = c.phase_begin[phase]; k < c.phase_end(phase); ++k) {
        for (std::size_t j = 0; j < H; ++j) {
          const double d_u = d_in[j][4 + k];
          d.d_bias_hh[k * H + j] += d_u;
          for (std::size_t i = 0; i < H && !p.weight_hh.empty(); ++i) {
            d.d_weight_hh[(k * H + j) * H + i] += d_u * operands[phase][i];
            d_operand[i] += d_u * p.weight_hh[(k * H + j) * H + i];
          }
        }
      }
      if (phase == 0) d_h = d_operand;
      for (std::size_t j = 0; phase > 0 && j < H; ++j) {
        add(j, d_operand[j], out[phase - 1][j].operand);
      }
    }
    for (std::size_t j = 0; j < H; ++j) {
      for (std::size_t k = 0; k < c.gates; ++k) {
        const double d_a = d_in[j][k];
        d.d_gates[n * c.gates * H + k * H + j] = d_a;
        d.d_bias_ih[k * H + j] += d_a;
        for (std::size_t i = 0; i < p.I; ++i) {
          d.d_weight_ih[(k * H + j) * p.I + i] += d_a * p.x[n * p.I + i];
          d.d_x[n * p.I + i] += d_a * p.weight_ih[(k * H + j) * p.I + i];
        }
      }
      for (std::size_t k = 0; k < c.parameters; ++k) d.d_parameter[k * H + j] += d_in[j][12 + k];
      for (std::size_t s = 0; s < c.states; ++s) d_state[s][j] = d_in[j][8 + s];
      d_state[0][j] += d_h[j];
    }
  }

 private:
  static Dual variable(double value, std::size_t which) {
    Dual y{value};
    y.d[which] = 1;
    return y;
  }
  const Layer& p;
  const Cell& c;
  std::size_t n;
  std::vector<UnitInputs> units;
  std::vector<Values> operands{};
  std::vector<std::vector<UnitOutputs>> out{};
};

/// The states that step t of row b finds.
inline std::vector<Values> states_before(const Layer& p, const LayerStates& s, std::size_t t,
                                         std::size_t b) {
  std::vector<Values> before(p.cell->states, Values(p.H, 0.0));
  for (std::size_t k = 0; k < before.size() && !p.resets(t, b); ++k) {
    const bool first = t == p.first(b);
    for (std::size_t j = 0; j < p.H && !(first && p.initial[k].empty()); ++j) {
      before[k][j] = first ? p.initial[k][b * p.H + j] : s.state[k][((t - 1) * p.B + b) * p.H + j];
    }
  }
  return before;
}

inline LayerStates forward(const Layer& p) {
  LayerStates s;
  s.gates.resize(p.T * p.B * p.cell->gates * p.H);
  for (std::size_t k = 0; k < p.cell->states; ++k) {
    s.state[k].resize(p.T * p.B * p.H);
    s.last[k] = p.initial[k].empty() ? Values(p.B * p.H, 0.0) : p.initial[k];
  }
  for (std::size_t b = 0; b < p.B; ++b) {
    for (std::size_t t = p.first(b); t < p.past(b); ++t) {
      const RowStep step(p, states_before(p, s, t, b), t, b);
      for (std::size_t j = 0; j < p.H; ++j) {
        const UnitOutputs& unit = step.unit(j);
        for (std::size_t k = 0; k < p.cell->gates; ++k) {
          s.gates[((t * p.B + b) * p.cell->gates + k) * p.H + j] = unit.gate[k].value;
        }
        for (std::size_t k = 0; k < p.cell->states; ++k) {
          s.state[k][(t * p.B + b) * p.H + j] = s.last[k][b * p.H + j] = unit.state[k].value;
        }
      }
    }
  }
  return s;
}

/// Back-propagation through time, one row of the batch after the other, from its last step.
inline LayerGradients backward(const Layer& p, const LayerStates& s,
                               const LayerOutputGradients& out) {
  const std::size_t columns = p.cell->gates * p.H;
  LayerGradients d{.d_x = Values(p.T * p.B * p.I),
                   .d_weight_ih = Values(columns * p.I),
                   .d_weight_hh = Values(p.weight_hh.empty() ? 0 : columns * p.H),
                   .d_bias_ih = Values(columns),
                   .d_bias_hh = Values(columns),
                   .d_parameter = Values(p.cell->parameters * p.H),
                   .d_gates = Values(p.T * p.B * columns)};
  for (std::size_t k = 0; k < p.cell->states; ++k) d.d_initial[k].resize(p.B * p.H);
  for (std::size_t b = 0; b < p.B; ++b) {
    std::vector<Values> d_state(p.cell->states, Values(p.H, 0.0));
    for (std::size_t k = 0; k < d_state.size(); ++k) {
      for (std::size_t j = 0; j < p.H && !out.d_last[k].empty(); ++j) {
        d_state[k][j] = out.d_last[k][b * p.H + j];
      }
    }
    for (std::size_t t = p.past(b); t-- > p.first(b);) {
      for (std::size_t j = 0; j < p.H && !out.d_h.empty(); ++j) {
        d_state[0][j] += out.d_h[(t * p.B + b) * p.H + j];
      }
      RowStep(p, states_before(p, s, t, b), t, b).backward(d_state, d);
      if (p.resets(t, b)) d_state.assign(d_state.size(), Values(p.H, 0.0));
    }
    for (std::size_t k = 0; k < d_state.size(); ++k) {
      for (std::size_t j = 0; j < p.H; ++j) d.d_initial[k][b * p.H + j] = d_state[k][j];
    }
  }
  return d;
}

}  // namespace carousel::reference
