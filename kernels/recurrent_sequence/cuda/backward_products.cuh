#pragma once

#include "kernels/recurrent_sequence/cuda/gradient_kernels.cuh"
#include "kernels/recurrent_sequence/cuda/products.cuh"
#include "kernels/reduce/reduce.h"

namespace carousel {

template <class T>
struct BackwardScratch {
  BackwardParts<T> parts{};
  View<float, 1> sums{}, sum_scratch{};
};

/// What a backward pass does once the gradients of all steps are known: one product over all T·B rows
/// for each weight and for x, one column sum for each vector.
template <class T>
class AfterLoop {
 public:
  AfterLoop(const Cuda& on, const RecurrentSequenceBackward<T>& backward,
            const BackwardScratch<T>& laid_out)
      : device(on), op(backward), scratch(laid_out) {}

  void run() const {
    write_states();
    multiply_inputs();
    if (op.d_weight_hh.present()) {
      keep_h_before();
      for (int phase = 0; phase < cell.phases; ++phase) multiply_hidden(phase);
    }
    multiply_projection();
    sum_biases();
    sum_rows(parts.d_parameter, op.d_parameter.view.data, op.d_parameter.view.size(),
             op.d_parameter.accumulate);
    sum_rows(parts.d_gain, op.d_gain.view.data, op.d_gain.view.size(), op.d_gain.accumulate);
    for (std::size_t s = 0; s < op.d_start.size(); ++s) {
      const float* const from = s == 0 ? parts.h.start : parts.state[s - 1].start;
      sum_rows(from, op.d_start[s].view.data, op.d_start[s].view.size(), op.d_start[s].accumulate);
    }
  }

 private:
  template <class S>
  void write_state(const StateFlow& flow, std::int64_t units, const View<const S, 2>& initial,
                   const View<const S, 2>& last, const Gradient<S, 2>& out) const {
    if (!out.present() && flow.start == nullptr) return;
    launch(device, grid_of_places<S>(batch, units), recurrent_sequence_initial_state_kernel<T, S>,
           op, flow, units, initial, last, out);
  }
  void write_states() const {
    write_state<T>(parts.h, op.h.extent[2], op.h0, op.d_h_last, op.d_h0);
    for (int s = 1; s < cell.states; ++s) {
      const auto k = static_cast<std::size_t>(s - 1);
      write_state<float>(parts.state[k], width, op.state0[k], op.d_state_last[k], op.d_state0[k]);
    }
  }

  /// Gradients [T·B, G·H] that the products of the input's weights read.
  const T* d_input() const { return op.gain.present() ? op.normal.data : op.gates.data; }

  void multiply_inputs() const {
    const std::int64_t input = op.x.extent[2];
    if (op.d_x.present()) {
      Gemm d_x = product_of<T>(op);
      d_x.accumulate = op.d_x.accumulate;
      d_x.m = rows, d_x.n = input, d_x.k = columns;
      d_x.a = d_input(), d_x.b = op.weight_ih.data, d_x.c = op.d_x.view.data;
      gemm(device, d_x);
    }
    if (!op.d_weight_ih.present()) return;
    if (parts.x != nullptr) {
      launch(device, grid_of_places<T>(rows, input), recurrent_sequence_unpadded_kernel<T>, op,
             parts.x);
    }
    add_weight(d_input(), columns, parts.x != nullptr ? parts.x : op.x.data, input, op.d_weight_ih);
  }

  /// dᵀ·by over all rows, of `m` and `n` columns.
  void add_weight(const T* d, std::int64_t m, const T* by, std::int64_t n,
                  const Gradient<float, 2>& to) const {
    Gemm sum = product_of<T>(op);
    sum.transpose_a = true, sum.float_output = true, sum.accumulate = to.accumulate;
    sum.m = m, sum.n = n, sum.k = rows;
    sum.a = d, sum.b = by, sum.c = to.view.data;
    gemm(device, sum);
  }

  void multiply_projection() const {
    if (!op.d_weight_hr.present()) return;
    add_weight(parts.d_h, op.h.extent[2], op.saved.data + cell.saved() * rows * width, width,
               op.d_weight_hr);
  }

  void keep_h_before() const {
    if (parts.h_before == nullptr) return;
    launch(device, grid_of_places<T>(rows, op.h.extent[2]), recurrent_sequence_h_before_kernel<T>,
           op, parts.h.factors, parts.h_before);
  }

  /// Σ_t δu[t]·operandᵀ for the gates of a phase: those whose δu are in one matrix at once, each of
  /// the others from where it is.
  void multiply_hidden(int phase) const {
    const int first = cell.gates_begin(phase), end = cell.gates_begin(phase + 1);
    const auto part = [&](int which) { return op.saved.data + which * rows * width; };
    const auto add = [&](Rows<T> d, int gate, int count) {
      phase > 0
          ? hidden.gradient(rows, gate, count, d, part(cell.split + phase - 1), op.d_weight_hh)
          : pair_with_h(d, gate, count);
    };
    if (first == end) return;
    if (op.gain.present()) {
      return add({op.normal.data + rows * columns + first * width, columns}, first, end - first);
    }
    const int joint = std::min(end, cell.first_split()) - first;
    if (joint > 0) add({op.gates.data + first * width, columns}, first, joint);
    for (int k = std::max(first, cell.first_split()); k < end; ++k) {
      add({part(k - cell.first_split()), width}, k, 1);
    }
  }

  void pair_with_h(Rows<T> d, int gate, int count) const {
    if (parts.h_before != nullptr) {
      return hidden.gradient(rows, gate, count, d, parts.h_before, op.d_weight_hh);
    }
    // ĥ is h, one step later: no copy is needed to pair δu of all steps but the first with it.
    const std::int64_t others = std::max<std::int64_t>(rows - batch, 0);
    const std::int64_t hidden_units = op.h.extent[2];
    const Rows<T> later{d.data + (op.reverse ? 0 : rows - others) * d.stride, d.stride};
    const T* const earlier = op.h.data + (op.reverse ? rows - others : 0) * hidden_units;
    hidden.gradient(others, gate, count, later, earlier, op.d_weight_hh);
    if (!op.h0.present() || rows == 0) return;
    Gradient<float, 2> sum = op.d_weight_hh;
    sum.accumulate = true;
    const Rows<T> first{d.data + (op.reverse ? others : 0) * d.stride, d.stride};
    hidden.gradient(batch, gate, count, first, op.h0.data, sum);
  }

  void sum_biases() const {
    if (!op.d_bias_ih.present() && !op.d_bias_hh.present()) return;
    const View<float, 1>& sums = scratch.sums;
    const auto add = [&](const T* values, std::int64_t count, float* to) {
      carousel::run(device, ColumnSum<T>{.x = {values, {rows, count}},
                                         .sum = {{to, {count}}},
                                         .scratch = scratch.sum_scratch});
    };
    add(op.gates.data, columns, sums.data);
    for (int k = 0; k < cell.split; ++k) {
      add(op.saved.data + k * rows * width, width, sums.data + columns + k * width);
    }
    const auto write = [&](const Gradient<float, 1>& to, std::int64_t joint, std::int64_t split) {
      if (!to.present()) return;
      launch(device, {.blocks = blocks_for(columns, kCellThreads), .threads = kCellThreads},
             recurrent_sequence_bias_kernel<T>, to, View<const float, 1>(sums), joint, split);
    };
    write(op.d_bias_ih, columns, 0);
    write(op.d_bias_hh, cell.first_split() * width, cell.split * width);
  }

  /// Sums [B, count] over the rows of the batch.
  void sum_rows(const float* from, float* to, std::int64_t count, bool accumulate) const {
    if (to == nullptr) return;
    carousel::run(device, ColumnSum<float>{.x = {from, {batch, count}},
                                           .sum = {{to, {count}}, accumulate},
                                           .scratch = scratch.sum_scratch});
  }

  const Cuda& device;
  const RecurrentSequenceBackward<T>& op;
  const BackwardScratch<T>& scratch;
  const BackwardParts<T>& parts = scratch.parts;
  const CellInfo& cell = *op.cell;
  const std::int64_t batch = op.h.extent[1], width = parts.width, columns = op.gates.extent[2];
  const std::int64_t rows = op.h.extent[0] * batch;
  const RecurrentProducts<T> hidden{device, op};
};

}  // namespace carousel
