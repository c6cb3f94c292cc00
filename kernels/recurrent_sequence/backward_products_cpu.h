#pragma once

#include "kernels/recurrent_sequence/backward_cpu.h"

namespace carousel {

/// What follows the time loop of the backward pass, once δa and δu of all steps are known: one
/// product over all steps for each weight and for d_x, and the columns' sums. Where rows have
/// ranges, of the steps that are there.
template <class T>
class StepSums {
 public:
  using Acc = Accumulator<T>;
  explicit StepSums(const BackwardPass<T>& pass)
      : p(pass), op(pass.op), all(pass.steps * pass.batch), d_a(op.gates.data) {
    if (p.normalizes) d_a = p.normal(0, 0);
    if (p.rows.present()) count = p.packed.count;
  }

  void run() {
    multiply_inputs();
    for (int phase = 0; op.d_weight_hh.present() && phase < p.cell.phases; ++phase) {
      if (p.cell.gates_of(phase) > 0) multiply_hidden(phase);
    }
    multiply_projection();
    sum_biases();
    const auto sum_rows = [&](const Acc* values, const auto& to) {
      if (!to.present()) return;
      sum_columns(values, p.batch, to.view.size(), to.view.data, to.accumulate);
    };
    sum_rows(p.d_parameter, op.d_parameter);
    sum_rows(p.d_gain, op.d_gain);
    for (std::size_t s = 0; s < op.d_start.size(); ++s) sum_rows(p.d_start[s], op.d_start[s]);
  }

 private:
  template <class U>
  static void sum_columns(const U* values, std::int64_t rows, std::int64_t columns, Acc* to,
                          bool accumulate = false) {
    carousel::run(
        Cpu{}, ColumnSum<U>{.x = {values, {rows, columns}}, .sum = {{to, {columns}}, accumulate}});
  }
  /// A tensor [T·B, n] without the steps that are not there.
  const T* packed(const T* values, std::int64_t n, T* to) const {
    return p.rows.present() ? p.packed.gather(values, n, n, to) : values;
  }

  void multiply_inputs() {
    const T* const d = packed(d_a, p.columns(), p.packed_d);
    if (op.d_x.present()) {
      if (p.rows.present()) {
        multiply_packed_d_x(d);
      } else {
        multiply(CpuProduct<T>{.accumulate = op.d_x.accumulate,
                               .m = all,
                               .n = p.input,
                               .k = p.columns(),
                               .a = d,
                               .b = op.weight_ih.data,
                               .c = op.d_x.view.data});
      }
    }
    if (!op.d_weight_ih.present()) return;
    multiply(CpuProduct<T, Acc>{.transpose_a = true,
                                .accumulate = op.d_weight_ih.accumulate,
                                .m = p.columns(),
                                .n = p.input,
                                .k = count,
                                .a = d,
                                .b = packed(op.x.data, p.input, p.packed_x),
                                .c = op.d_weight_ih.view.data});
  }
  void multiply_packed_d_x(const T* d) const {
    multiply(CpuProduct<T, Acc>{.m = count,
                                .n = p.input,
                                .k = p.columns(),
                                .a = d,
                                .b = op.weight_ih.data,
                                .c = p.packed_d_x});
#pragma omp parallel for schedule(static)
    for (std::int64_t n = 0; n < all; ++n) {
      T* const to = op.d_x.view.data + n * p.input;
      const bool has = p.has(n / p.batch, n % p.batch);
      const Acc* const from = has ? p.packed_d_x + p.packed.index[n] * p.input : nullptr;
      for (std::int64_t j = 0; j < p.input; ++j) {
        const Acc old = op.d_x.accumulate ? cell_rows::widened(to + j) : Acc{0};
        cell_rows::store(to + j, has ? old + from[j] : old);
      }
    }
  }

  /// Σ_t δu[t]·operandᵀ for the gates of a phase: those that are not split from δa at once, each of
  /// the others from where its δu is; all of them from what was normalized.
  void multiply_hidden(int phase) {
    const CellInfo& cell = p.cell;
    if (p.normalizes) {
      const T* const d = packed(p.normal(1, 0), p.columns(), p.packed_d);
      return pair(phase, d, p.columns(), 0, cell.gates);
    }
    const int first = cell.gates_begin(phase), end = cell.gates_begin(phase + 1);
    const int joint = std::min(end, cell.first_split()) - first;
    const T* const d = p.rows.present() ? p.packed_d : d_a;
    if (joint > 0) pair(phase, d + first * p.width, p.columns(), first, joint);
    for (int k = std::max(first, cell.first_split()); k < end; ++k) {
      const T* const d_u = packed(p.saved(k - cell.first_split()), p.width, p.packed_units);
      pair(phase, d_u, p.width, k, 1);
    }
  }

  /// The sum for `gates` gates from `gate` on, whose δu are columns of d.
  void pair(int phase, const T* d, std::int64_t stride, int gate, int gates) const {
    if (phase > 0) {
      const T* const operand =
          packed(p.saved(p.cell.split + phase - 1), p.width, p.packed_units + all * p.width);
      return add(d, stride, operand, p.width, count, gate, gates, op.d_weight_hh.accumulate);
    }
    if (p.keeps_h_before()) {
      return add(d, stride, p.h_before, p.output, count, gate, gates, op.d_weight_hh.accumulate);
    }
    // ĥ is h, one step away: no copy is needed to pair δu[1 …] with h[0 …], or the other way.
    const std::int64_t step = p.steps > 0 ? p.batch : 0, rest = all - step;
    const T *const d_rest = d + (p.reverse ? 0 : step * stride), *const h_rest =
                                                                     op.h.data +
                                                                     (p.reverse ? step * p.output
                                                                                : 0);
    add(d_rest, stride, h_rest, p.output, rest, gate, gates, op.d_weight_hh.accumulate);
    if (!op.h0.present() || p.steps == 0) return;
    add(d + (p.reverse ? rest * stride : 0), stride, op.h0.data, p.output, step, gate, gates, true);
  }
  void add(const T* d, std::int64_t stride, const T* operand, std::int64_t operand_width,
           std::int64_t rows, int gate, int gates, bool accumulate) const {
    const std::int64_t n = operand_width / p.heads;
    CpuProduct<T, Acc> sum{.transpose_a = true,
                           .accumulate = accumulate,
                           .m = gates * p.width,
                           .n = n,
                           .k = rows,
                           .a = d,
                           .a_stride = stride,
                           .b = operand,
                           .b_stride = operand_width,
                           .c = op.d_weight_hh.view.data + gate * p.width * n};
    if (p.heads == 1) return multiply(sum);
    sum.m = n;
    for (std::int64_t i = 0; i < gates * p.heads; ++i) {
      sum.a = d + i * n, sum.b = operand + i % p.heads * n;
      sum.c = op.d_weight_hh.view.data + (gate * p.width + i * n) * n;
      multiply(sum);
    }
  }

  void multiply_projection() const {
    if (!op.d_weight_hr.present()) return;
    multiply(CpuProduct<T, Acc>{.transpose_a = true,
                                .accumulate = op.d_weight_hr.accumulate,
                                .m = p.output,
                                .n = p.width,
                                .k = all,
                                .a = p.d_projected,
                                .b = p.saved(p.cell.saved()),
                                .c = op.d_weight_hr.view.data});
  }

  /// One sum serves both biases, but for split gates.
  void sum_biases() const {
    if (!op.d_bias_ih.present() && !op.d_bias_hh.present()) return;
    sum_columns(op.gates.data, all, p.columns(), p.sums);
    for (int k = 0; k < p.cell.split; ++k) {
      sum_columns(p.saved(k), all, p.width, p.sums + p.columns() + k * p.width);
    }
    const std::int64_t joint = p.cell.first_split() * p.width;
    const auto write = [&](const Gradient<Acc, 1>& to, std::int64_t split) {
      for (std::int64_t k = 0; to.present() && k < p.columns(); ++k) {
        to.view(k) =
            (k < joint ? p.sums : p.sums + split)[k] + (to.accumulate ? to.view(k) : Acc{0});
      }
    };
    write(op.d_bias_ih, 0);
    write(op.d_bias_hh, p.cell.split * p.width);
  }

  const BackwardPass<T>& p;
  const RecurrentSequenceBackward<T>& op;
  std::int64_t all, count = all;  // steps of all rows, and those that are there
  const T* d_a;                   // [T·B, G·H] what the products of the inputs read
};

template <class T>
void BackwardPass<T>::sum_over_steps() const {
  StepSums<T>(*this).run();
}

}  // namespace carousel
