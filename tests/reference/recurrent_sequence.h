#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "tests/reference/recurrent_step.h"

namespace carousel::reference {

struct LayerStates {
  std::array<Values, 4> state{}, last{};  ///< [T, B, H], [B, H]; h has P instead of H
  Values gates{};
  Values unclipped{};   ///< [T, B, H] cell states before they are bounded
  double steepest = 0;  ///< the largest 1 / √(variance + 1e-5) of what is normalized
};

/// Gradients of what leaves a layer; empty: zero.
struct LayerOutputGradients {
  Values d_h{};
  std::array<Values, 4> d_last{};
};

/// The state that a row finds at its first step.
inline Values first_state(const Layer& p, std::size_t k, std::size_t b) {
  return p.begins_at_start(k, b) ? row_of(p.start[k], 0, p.width(k))
                                 : row_of(p.initial[k], b, p.width(k));
}

/// The states that step t of row b finds.
inline std::vector<Values> states_before(const Layer& p, const LayerStates& s, std::size_t t,
                                         std::size_t b) {
  std::vector<Values> before;
  for (std::size_t k = 0; k < p.cell->states; ++k) {
    const std::size_t width = p.width(k);
    if (p.cut(t, b)) {
      before.push_back(row_of(p.start[k], 0, width));
    } else if (t == p.steps(b).front()) {
      before.push_back(first_state(p, k, b));
    } else {
      before.push_back(row_of(s.state[k], (p.reverse ? t + 1 : t - 1) * p.B + b, width));
    }
  }
  return before;
}

inline LayerStates forward(const Layer& p) {
  LayerStates s;
  s.gates.resize(p.T * p.B * p.cell->gates * p.H);
  s.unclipped.resize(p.T * p.B * p.H);
  for (std::size_t k = 0; k < p.cell->states; ++k) s.state[k].resize(p.T * p.B * p.width(k));
  for (std::size_t b = 0; b < p.B; ++b) {
    std::vector<Values> last;
    for (std::size_t k = 0; k < p.cell->states; ++k) last.push_back(first_state(p, k, b));
    for (const std::size_t t : p.steps(b)) {
      const std::size_t n = t * p.B + b;
      const RowStep step(p, states_before(p, s, t, b), t, b);
      s.steepest = std::max(s.steepest, step.steepest());
      for (std::size_t j = 0; j < p.H; ++j) {
        s.unclipped[n * p.H + j] = step.unit(j).unclipped;
        for (std::size_t k = 0; k < p.cell->gates; ++k) {
          s.gates[(n * p.cell->gates + k) * p.H + j] = step.unit(j).gate[k].value;
        }
      }
      for (std::size_t k = 0; k < p.cell->states; ++k) {
        last[k] = step.state(k);
        std::copy(last[k].begin(), last[k].end(),
                  s.state[k].begin() + static_cast<std::ptrdiff_t>(n * p.width(k)));
      }
    }
    for (std::size_t k = 0; k < p.cell->states; ++k) {
      s.last[k].insert(s.last[k].end(), last[k].begin(), last[k].end());
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
                   .d_weight_hh = Values(p.weight_hh.size()),
                   .d_bias_ih = Values(columns),
                   .d_bias_hh = Values(p.cell->multiplies ? columns : 0),
                   .d_parameter = Values(p.cell->parameters * p.H),
                   .d_gates = Values(p.T * p.B * columns),
                   .d_weight_hr = Values(p.weight_hr.size()),
                   .d_gain = Values(p.gain.size())};
  for (std::size_t k = 0; k < p.cell->states; ++k) {
    d.d_initial[k].resize(p.B * p.width(k)), d.d_start[k].resize(p.width(k));
  }
  for (std::size_t b = 0; b < p.B; ++b) {
    std::vector<Values> d_state;
    for (std::size_t k = 0; k < p.cell->states; ++k) {
      d_state.push_back(row_of(out.d_last[k], b, p.width(k)));
    }
    const auto to_start = [&](std::size_t k) {
      for (std::size_t j = 0; j < p.width(k); ++j) d.d_start[k][j] += d_state[k][j];
    };
    std::vector<std::size_t> steps = p.steps(b);
    for (; !steps.empty(); steps.pop_back()) {
      const std::size_t t = steps.back();
      const Values d_h = row_of(out.d_h, t * p.B + b, p.P());
      for (std::size_t j = 0; j < p.P(); ++j) d_state[0][j] += d_h[j];
      RowStep(p, states_before(p, s, t, b), t, b).backward(d_state, d);
      for (std::size_t k = 0; k < d_state.size() && p.cut(t, b); ++k) {
        to_start(k);
        d_state[k].assign(p.width(k), 0.0);
      }
    }
    for (std::size_t k = 0; k < d_state.size(); ++k) {
      if (p.begins_at_start(k, b)) to_start(k);
      if (!p.carried.empty() && p.carried[b] == 0) continue;
      std::copy(d_state[k].begin(), d_state[k].end(),
                d.d_initial[k].begin() + static_cast<std::ptrdiff_t>(b * p.width(k)));
    }
  }
  return d;
}

}  // namespace carousel::reference
