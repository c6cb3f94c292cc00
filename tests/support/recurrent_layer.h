#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/recurrent_sequence/recurrent_sequence.h"
#include "tests/support/buffer.h"
#include "tests/support/uniform.h"

namespace carousel::test {

/// The sizes of a layer to be timed.
struct RecurrentLayerSize {
  std::int64_t T, B, I, H;
  std::size_t rows() const { return static_cast<std::size_t>(T * B); }
  /// Of the forward pass of a cell of one gate: two products. The backward pass has four of the
  /// same sizes.
  double flops() const { return 2.0 * static_cast<double>(T * B * H) * static_cast<double>(I + H); }
};

/// Everything a layer reads and writes in one training step, with a state carried in.
template <class T>
struct RecurrentLayer {
  using Acc = Accumulator<T>;
  Device device;
  CellKind cell;
  RecurrentLayerSize size;
  bool tf32 = false;
  std::int64_t columns = cell->gates * size.H, units = size.T * size.B * size.H;
  double bound = 1 / std::sqrt(static_cast<double>(size.H));
  Buffer<T> x = uniform<T>(device, size.T* size.B* size.I);
  Buffer<T> weight_ih = uniform<T>(device, columns* size.I, bound);
  Buffer<T> weight_hh = uniform<T>(device, columns* size.H, bound);
  Buffer<Acc> bias = uniform<Acc>(device, columns, bound);
  Buffer<Acc> parameter = uniform<Acc>(device, cell->parameters* size.H, bound);
  Buffer<Acc> d_parameter{device, count(cell->parameters* size.H)};
  Buffer<Acc> deviation{device, count(cell->normalized_phases() * size.T * size.B)};
  Buffer<T> h0 = uniform<T>(device, size.B* size.H);
  Buffer<Acc> state0 = uniform<Acc>(device, size.B* size.H);
  Buffer<T> h{device, count(units)}, gates{device, count(units * cell->gates)};
  Buffer<T> saved{device, count(units * cell->saved())};
  Buffer<T> d_h = uniform<T>(device, units);
  Buffer<Acc> state{device, count(units*(cell->states - 1))};
  Buffer<T> d_x{device, count(size.T* size.B* size.I)};
  Buffer<Acc> d_weight_ih{device, count(columns* size.I)};
  Buffer<Acc> d_weight_hh{device, count(columns* size.H)};
  Buffer<Acc> d_bias_ih{device, count(columns)}, d_bias_hh{device, count(columns)};

  RecurrentSequenceForward<T> forward() const {
    const auto [t, b, i, n] = size;
    RecurrentSequenceForward<T> op{.cell = cell,
                                   .x = x.view(t, b, i),
                                   .weight_ih = weight_ih.view(columns, i),
                                   .bias_ih = bias.view(columns),
                                   .h0 = h0.view(b, n),
                                   .h = h.view(t, b, n),
                                   .gates = gates.view(t, b, columns),
                                   .tf32 = tf32};
    if (cell->multiplies) op.bias_hh = bias.view(columns);
    fill_rest(op);
    return op;
  }
  RecurrentSequenceBackward<T> backward() const {
    const auto [t, b, i, n] = size;
    RecurrentSequenceBackward<T> op{.cell = cell,
                                    .d_h = d_h.view(t, b, n),
                                    .x = x.view(t, b, i),
                                    .weight_ih = weight_ih.view(columns, i),
                                    .h0 = h0.view(b, n),
                                    .h = h.view(t, b, n),
                                    .gates = gates.view(t, b, columns),
                                    .d_x = {d_x.view(t, b, i)},
                                    .d_weight_ih = {d_weight_ih.view(columns, i)},
                                    .d_bias_ih = {d_bias_ih.view(columns)},
                                    .tf32 = tf32};
    if (cell->multiplies) {
      op.d_weight_hh = {d_weight_hh.view(columns, n)};
      op.d_bias_hh = {d_bias_hh.view(columns)};
    }
    if (cell->parameters > 0) op.d_parameter = {d_parameter.view(cell->parameters, n)};
    fill_rest(op);
    return op;
  }

 private:
  static std::size_t count(std::int64_t number) { return static_cast<std::size_t>(number); }
  template <class Op>
  void fill_rest(Op& op) const {
    const auto [t, b, i, n] = size;
    if (cell->multiplies) op.weight_hh = weight_hh.view(columns, n);
    if (cell->parameters > 0) op.parameter = parameter.view(cell->parameters, n);
    if (op.normalizations() > 0) op.deviation = deviation.view(op.normalizations(), t, b);
    const std::size_t others = count(cell->states - 1);
    for (std::size_t s = 0; s < others; ++s) {
      op.state0[s] = state0.view(b, n);
      op.state[s] = {state.view(0).data + static_cast<std::int64_t>(s) * units, {t, b, n}};
    }
    if (cell->saved() > 0) op.saved = saved.view(cell->saved(), t, b, n);
  }
};

}  // namespace carousel::test
