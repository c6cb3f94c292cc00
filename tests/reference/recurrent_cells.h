#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string_view>
#include <vector>

namespace carousel::reference {

/// What enters one unit of a cell: places of its derivatives in a Dual.
inline constexpr std::size_t kOfX = 0, kOfU = 4, kOfBefore = 8, kOfParameter = 12, kOfNormal = 16;
using Derivatives = std::array<double, 17>;

/// A number and its derivatives by everything that enters one unit of a cell.
struct Dual {
  double value = 0;
  Derivatives d{};
};
inline Dual variable(double value, std::size_t which) {
  Dual y{value};
  y.d[which] = 1;
  return y;
}
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
inline Dual operator*(double a, const Dual& b) { return chain(a * b.value, a, b); }
inline Dual operator-(const Dual& a, const Dual& b) { return a + -1.0 * b; }
inline Dual operator/(const Dual& a, const Dual& b) {
  return a * chain(1 / b.value, -1 / (b.value * b.value), b);
}
inline Dual one() { return {1}; }
inline Dual logistic(const Dual& a) {
  const double y = 1 / (1 + std::exp(-a.value));
  return chain(y, y * (1 - y), a);
}
inline Dual tanh(const Dual& a) {
  const double y = std::tanh(a.value);
  return chain(y, 1 - y * y, a);
}
inline Dual exp(const Dual& a) { return chain(std::exp(a.value), std::exp(a.value), a); }
inline Dual rectified(const Dual& a) { return a.value > 0 ? a : Dual{}; }

/// What enters a unit: the input's part and the recurrent part of each gate, states, parameters,
/// the normalized operand of the phase before, and the options that act inside a cell.
struct UnitInputs {
  std::array<Dual, 4> x{}, u{}, before{}, p{};
  Dual normal{};
  double candidate_scale = 1, cell_limit = std::numeric_limits<double>::infinity();

  Dual kept(const Dual& candidate) const { return candidate_scale * candidate; }
  Dual clipped(const Dual& c) const {
    return std::abs(c.value) >= cell_limit ? Dual{std::copysign(cell_limit, c.value)} : c;
  }
};
struct UnitOutputs {
  std::vector<Dual> gate{}, state{};
  Dual operand{};        ///< of the next phase's product, or what it gets normalized
  double unclipped = 0;  ///< the cell state before it is bounded
};

/// A cell by its formulas alone: phase p, of x, of the recurrent parts u up to that phase's, and of
/// the rest. The last phase gives gates and states, an earlier one what the next one multiplies, or
/// what it gets normalized if it has no gates.
struct Cell {
  std::string_view name;
  std::size_t gates, states, parameters;
  std::vector<std::size_t> phase_begin;  ///< first gate of each phase's recurrent part
  UnitOutputs (*unit)(std::size_t phase, const UnitInputs& in);
  bool multiplies = true;  ///< has a recurrent product and its bias

  std::size_t phase_end(std::size_t p) const {
    return p + 1 < phase_begin.size() ? phase_begin[p + 1] : gates;
  }
  bool normalized(std::size_t p) const { return p > 0 && phase_begin[p] == phase_end(p); }
};

/// Hochreiter & Schmidhuber 1997 with the forget gate of Gers, Schmidhuber & Cummins 2000.
inline UnitOutputs lstm(std::size_t, const UnitInputs& in) {
  const auto& [x, u, before, p, normal, scale, limit] = in;
  const Dual i = logistic(x[0] + u[0]), f = logistic(x[1] + u[1]);
  const Dual g = tanh(x[2] + u[2]), o = logistic(x[3] + u[3]);
  const Dual sum = f * before[1] + i * in.kept(g), c = in.clipped(sum);
  return {.gate = {i, f, g, o}, .state = {o * tanh(c), c}, .unclipped = sum.value};
}

/// Gers & Schmidhuber 2000, as Graves 2013 writes it, equations 7 to 11: diagonal W_ci, W_cf, W_co.
inline UnitOutputs lstm_peephole(std::size_t, const UnitInputs& in) {
  const auto& [x, u, before, p, normal, scale, limit] = in;
  const Dual i = logistic(x[0] + u[0] + p[0] * before[1]);
  const Dual f = logistic(x[1] + u[1] + p[1] * before[1]);
  const Dual g = tanh(x[2] + u[2]);
  const Dual sum = f * before[1] + i * in.kept(g), c = in.clipped(sum);
  const Dual o = logistic(x[3] + u[3] + p[2] * c);
  return {.gate = {i, f, g, o}, .state = {o * tanh(c), c}, .unclipped = sum.value};
}

/// Ba, Kiros & Hinton 2016, equations 20 to 22; the layer normalizes the products.
inline UnitOutputs lstm_layer_norm(std::size_t phase, const UnitInputs& in) {
  UnitOutputs plain = lstm(0, in);
  if (phase == 0) return {.operand = plain.state[1], .unclipped = plain.unclipped};
  plain.state[0] = plain.gate[3] * tanh(in.p[0] * in.normal + in.p[1]);
  return plain;
}

/// Beck et al. 2024, equations 8 to 17, with f = σ. The stabilizer is a constant to all derivatives.
inline UnitOutputs slstm(std::size_t, const UnitInputs& in) {
  const auto& [x, u, before, p, normal, scale, limit] = in;
  const Dual a_i = x[0] + u[0], f = logistic(x[1] + u[1]);
  const Dual z = tanh(x[2] + u[2]), o = logistic(x[3] + u[3]);
  const Dual m{std::max(std::log(f.value) + before[3].value, a_i.value)};
  const Dual i = exp(a_i - m), forget = std::exp(before[3].value - m.value) * f;
  const Dual c = forget * before[1] + i * in.kept(z), n = forget * before[2] + i;
  return {.gate = {i, f, z, o}, .state = {o * (c / n), c, n, m}};
}

/// Cho et al. 2014, with PyTorch's reset after the product.
inline UnitOutputs gru(std::size_t, const UnitInputs& in) {
  const auto& [x, u, before, p, normal, scale, limit] = in;
  const Dual r = logistic(x[0] + u[0]), z = logistic(x[1] + u[1]), n = tanh(x[2] + r * u[2]);
  return {.gate = {r, z, n}, .state = {(one() - z) * in.kept(n) + z * before[0]}};
}

/// Cho et al. 2014, equations 5 to 8, where z keeps the old state.
inline UnitOutputs gru_reset_before(std::size_t phase, const UnitInputs& in) {
  const auto& [x, u, before, p, normal, scale, limit] = in;
  const Dual r = logistic(x[0] + u[0]), z = logistic(x[1] + u[1]);
  if (phase == 0) return {.operand = r * before[0]};
  const Dual n = tanh(x[2] + u[2]);
  return {.gate = {r, z, n}, .state = {z * before[0] + (one() - z) * in.kept(n)}};
}

/// Elman 1990.
inline UnitOutputs tanh_rnn(std::size_t, const UnitInputs& in) {
  const Dual h = tanh(in.x[0] + in.u[0]);
  return {.gate = {h}, .state = {h}};
}
inline UnitOutputs relu_rnn(std::size_t, const UnitInputs& in) {
  const Dual h = rectified(in.x[0] + in.u[0]);
  return {.gate = {h}, .state = {h}};
}
inline UnitOutputs linear_rnn(std::size_t, const UnitInputs& in) {
  const Dual h = in.x[0] + in.u[0];
  return {.gate = {h}, .state = {h}};
}

/// Li, Li, Cook, Zhu & Gao 2018, equation 2.
inline UnitOutputs relu_indrnn(std::size_t, const UnitInputs& in) {
  const Dual h = rectified(in.x[0] + in.p[0] * in.before[0]);
  return {.gate = {h}, .state = {h}};
}
inline UnitOutputs tanh_indrnn(std::size_t, const UnitInputs& in) {
  const Dual h = tanh(in.x[0] + in.p[0] * in.before[0]);
  return {.gate = {h}, .state = {h}};
}

/// The tests' own cell, tests/kernels/two_phase_cell.h.
inline UnitOutputs two_phase(std::size_t phase, const UnitInputs& in) {
  const auto& [x, u, before, p, normal, scale, limit] = in;
  const Dual h = before[0], c = before[1];
  const Dual r = logistic(x[0] + u[0] + p[0] * c), z = logistic(x[1] + u[1] + p[1] * c);
  if (phase == 0) return {.operand = r * h};
  const Dual n = tanh(x[2] + z * u[2]);
  const Dual sum = c + z * (in.kept(n) - c), c_new = in.clipped(sum);
  return {.gate = {r, z, n},
          .state = {z * h + (one() - z) * tanh(c_new), c_new},
          .unclipped = sum.value};
}

inline const Cell& cell(std::string_view name) {
  static const std::vector<Cell> table{
      {"lstm", 4, 2, 0, {0}, lstm},
      {"lstm_peephole", 4, 2, 3, {0}, lstm_peephole},
      {"lstm_layer_norm", 4, 2, 2, {0, 4}, lstm_layer_norm},
      {"slstm", 4, 4, 0, {0}, slstm},
      {"gru", 3, 1, 0, {0}, gru},
      {"gru_reset_before", 3, 1, 0, {0, 2}, gru_reset_before},
      {"tanh", 1, 1, 0, {0}, tanh_rnn},
      {"relu", 1, 1, 0, {0}, relu_rnn},
      {"linear", 1, 1, 0, {0}, linear_rnn},
      {"indrnn", 1, 1, 1, {0}, relu_indrnn, false},
      {"indrnn_tanh", 1, 1, 1, {0}, tanh_indrnn, false},
      {"two-phase", 3, 2, 2, {0, 2}, two_phase},
  };
  for (const Cell& row : table) {
    if (row.name == name) return row;
  }
  return table.at(table.size());  // throws: the oracle has no such cell
}

}  // namespace carousel::reference
