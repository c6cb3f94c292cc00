#pragma once

#include "kernels/recurrent_sequence/loop_cpu.h"
#include "kernels/reduce/reduce.h"

namespace carousel {

template <class T>
struct BackwardPass : SequenceShape {
  using Acc = Accumulator<T>;
  const RecurrentSequenceBackward<T>& op;
  const CellRows<T>& code;
  int states;  // besides h
  BatchSlices slices;
  Acc* d_h;                                     // [B, H] of ĥ, from the step after
  std::array<Acc*, kMostStates - 1> d_state{};  // [B, H] of ĉ …
  Acc *d_recurrent, *d_operand;                 // [B, columns] if kept, [B, H] if there are phases
  Acc *d_parameter, *zeros, *sums;              // [B, parameters·H], [H], [(G + split)·H]
  T *no_h, *h_before, *own_x;  // [H] zeros; if kept, ĥ and x without padding: [T, B, H], [T, B, I]
  std::array<std::byte*, kMostPhases> packed{};

  BackwardPass(const RecurrentSequenceBackward<T>& backward, const CellRows<T>& rows_of_cell,
               ScratchCutter& cut)
      : SequenceShape(backward),
        op(backward),
        code(rows_of_cell),
        states(cell.states - 1),
        slices(batch),
        d_h(cut.take<Acc>(batch * width)) {
    for (int s = 0; s < states; ++s) d_state[s] = cut.take<Acc>(batch * width);
    d_recurrent = cut.take<Acc>(keeps_d_recurrent() ? batch * most_columns() : 0);
    d_operand = cut.take<Acc>(cell.phases > 1 ? batch * width : 0);
    d_parameter = cut.take<Acc>(batch * cell.parameters * width);
    zeros = cut.take<Acc>(width);
    sums = cut.take<Acc>((cell.gates + cell.split) * width);
    no_h = cut.take<T>(width);
    h_before = cut.take<T>(keeps_h_before() ? steps * batch * width : 0);
    own_x = cut.take<T>(keeps_x() ? op.x.size() : 0);
    for (int p = 0; op.weight_hh.present() && p < cell.phases; ++p) {
      packed[p] =
          cut.take<std::byte>(static_cast<std::int64_t>(PackedMatrix<Acc>::bytes(weight_shape(p))));
    }
  }

  bool keeps_d_recurrent() const { return keeps_d_recurrent_of<T>(cell); }
  bool keeps_h_before() const {
    return (reset.present() || rows.present()) && op.d_weight_hh.present();
  }
  bool keeps_x() const { return rows.present() && op.d_weight_ih.present(); }
  /// Whether a step's product adds to d_h instead of replacing it, which rows outside their range
  /// have to keep.
  bool adds_to_d_h() const { return cell.reads_h || rows.present(); }
  PackedShape weight_shape(int phase) const {
    return {.k = columns_of(phase), .n = width, .rows = slices.most_rows()};
  }

  T* gates(std::int64_t t, std::int64_t row) const {
    return op.gates.data + place(t, row) * cell.gates;
  }
  T* saved(int which) const { return op.saved.data + which * steps * batch * width; }
  /// Of the slice that begins with row `first`.
  Acc* d_recurrent_row(int phase, std::int64_t first, std::int64_t row) const {
    if (!keeps_d_recurrent()) return nullptr;
    return d_recurrent + first * most_columns() + (row - first) * columns_of(phase);
  }
  const Acc* d_product(int phase, std::int64_t t, std::int64_t first) const {
    if constexpr (!kWidened<T>) {
      if (!keeps_d_recurrent()) return gates(t, first);
    }
    return d_recurrent_row(phase, first, first);
  }

  void start_row(std::int64_t row) const {
    const std::int64_t first = row * width;
    for (std::int64_t j = first; j < first + width; ++j) {
      d_h[j] = op.d_h_last.present() ? static_cast<Acc>(op.d_h_last.data[j]) : Acc{0};
      for (int s = 0; s < states; ++s) {
        d_state[s][j] = op.d_state_last[s].present() ? op.d_state_last[s].data[j] : Acc{0};
      }
    }
    std::fill_n(d_parameter + first * cell.parameters, width * cell.parameters, Acc{0});
  }

  void clear_row(int phase, std::int64_t t, std::int64_t first, std::int64_t row) const {
    std::fill_n(gates(t, row), columns(), T{});
    for (int k = 0; k < cell.saved(); ++k) std::fill_n(saved(k) + place(t, row), width, T{});
    if (keeps_d_recurrent()) {
      std::fill_n(d_recurrent_row(phase, first, row), columns_of(phase), Acc{0});
    }
  }

  void run_row(int phase, std::int64_t t, std::int64_t first, std::int64_t row) const {
    if (!has(t, row)) return clear_row(phase, t, first, row);
    const bool cut_after = resets(t + 1, row) && has(t + 1, row);
    Acc* const own_d_h = d_h + row * width;
    RowBackward<T> step{.width = width,
                        .gates = gates(t, row),
                        .d_recurrent = d_recurrent_row(phase, first, row),
                        .parameter = op.parameter.data,
                        .d_parameter = d_parameter + row * cell.parameters * width,
                        .h_before = before<T>(op.h, op.h0, t, row, no_h),
                        .h = op.h.data + place(t, row),
                        .d_h = op.d_h.present() ? op.d_h.data + place(t, row) : no_h,
                        .d_h_after = cut_after ? zeros : own_d_h,
                        .d_h_before = own_d_h,
                        .d_operand = op.weight_hh.present() ? d_operand + row * width : zeros};
    for (int s = 0; s < states; ++s) {
      step.state_before[s] = before<Acc>(op.state[s], op.state0[s], t, row, zeros);
      step.state[s] = op.state[s].data + place(t, row);
      step.d_state_before[s] = d_state[s] + row * width;
      step.d_state_after[s] = cut_after ? zeros : step.d_state_before[s];
    }
    for (int k = 0; k < cell.saved(); ++k) step.saved[k] = saved(k) + place(t, row);
    code.backward[phase](step);
    if (!cell.reads_h && (adds_to_d_h() || !op.weight_hh.present())) {
      std::fill_n(own_d_h, width, Acc{0});
    }
  }

  /// The factors of the weights' gradients, where they are not what the caller has.
  void keep_factors(std::int64_t t, std::int64_t row) const {
    if (keeps_h_before()) {
      const T* const h = has(t, row) ? before<T>(op.h, op.h0, t, row, no_h) : no_h;
      std::copy_n(h, width, h_before + place(t, row));
    }
    if (keeps_x()) {
      const std::int64_t input = op.x.extent[2], from = (t * batch + row) * input;
      if (has(t, row)) {
        std::copy_n(op.x.data + from, input, own_x + from);
      } else {
        std::fill_n(own_x + from, input, T{});
      }
    }
  }

  void finish_row(std::int64_t row) const {
    const bool cut = !is_empty(row) && resets(range(row).first, row);
    const auto write = [&](const auto& to, const Acc* d) {
      if (!to.present()) return;
      for (std::int64_t j = row * width; j < (row + 1) * width; ++j) {
        auto& out = to.view.data[j];
        const Acc old = to.accumulate ? static_cast<Acc>(out) : Acc{0};
        out = static_cast<std::remove_reference_t<decltype(out)>>(old + (cut ? Acc{0} : d[j]));
      }
    };
    write(op.d_h0, d_h);
    for (int s = 0; s < states; ++s) write(op.d_state0[s], d_state[s]);
  }

  void run() const {
    std::fill_n(zeros, width, Acc{0});
    std::fill_n(no_h, width, T{});
    std::array<std::optional<PackedMatrix<Acc>>, kMostPhases> weight;
    for (int p = 0; op.weight_hh.present() && p < cell.phases; ++p) {
      weight[p].emplace(weight_shape(p), op.weight_hh.data + cell.gates_begin(p) * width * width,
                        false, packed[p]);
    }
    slices.note();
    slices.for_each([&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) start_row(row);
      for (std::int64_t t = steps; t-- > 0;) {
        for (int phase = cell.phases; phase-- > 0;) {
          for_rows(first, last, width, [&](std::int64_t row) {
            run_row(phase, t, first, row);
            if (phase == 0) keep_factors(t, row);
          });
          if (!weight[phase] || (phase == 0 && t == 0 && !op.d_h0.present())) continue;
          Acc* const to = phase > 0 ? d_operand : d_h;
          weight[phase]->multiply(last - first, d_product(phase, t, first), to + first * width,
                                  phase == 0 && adds_to_d_h());
        }
      }
      for (std::int64_t row = first; row < last; ++row) finish_row(row);
    });
    multiply_inputs();
    if (op.d_weight_hh.present()) {
      for (int phase = 0; phase < cell.phases; ++phase) multiply_hidden(phase);
    }
    sum_biases();
    sum_parameters();
  }

  void multiply_inputs() const;
  void multiply_hidden(int phase) const;
  void sum_biases() const;
  void sum_parameters() const;
};

/// The products over all steps, once δa is known everywhere.
template <class T>
void BackwardPass<T>::multiply_inputs() const {
  const std::int64_t all = steps * batch, input = op.x.extent[2];
  if (op.d_x.present()) {
    multiply(CpuProduct<T>{.accumulate = op.d_x.accumulate,
                           .m = all,
                           .n = input,
                           .k = columns(),
                           .a = op.gates.data,
                           .b = op.weight_ih.data,
                           .c = op.d_x.view.data});
  }
  if (!op.d_weight_ih.present()) return;
  multiply(CpuProduct<T, Acc>{.transpose_a = true,
                              .accumulate = op.d_weight_ih.accumulate,
                              .m = columns(),
                              .n = input,
                              .k = all,
                              .a = op.gates.data,
                              .b = keeps_x() ? own_x : op.x.data,
                              .c = op.d_weight_ih.view.data});
}

/// Σ_t δu[t]·operandᵀ for the gates of a phase: those that are not split from `gates` at once, each
/// of the others from where its δu is.
template <class T>
void BackwardPass<T>::multiply_hidden(int phase) const {
  const auto add = [&](const T* d, std::int64_t stride, int gate, int count) {
    CpuProduct<T, Acc> sum{.transpose_a = true,
                           .accumulate = op.d_weight_hh.accumulate,
                           .m = count * width,
                           .n = width,
                           .k = steps * batch,
                           .a = d,
                           .a_stride = stride,
                           .b = keeps_h_before() ? h_before : op.h.data,
                           .c = op.d_weight_hh.view.data + gate * width * width};
    if (phase > 0) sum.b = saved(cell.split + phase - 1);
    if (phase > 0 || keeps_h_before()) return multiply(sum);
    // ĥ is h, one step later: no copy is needed to pair δu[1 …] with h[0 …].
    sum.k = std::max<std::int64_t>(steps - 1, 0) * batch;
    sum.a = d + (steps > 0 ? batch * stride : 0);
    multiply(sum);
    if (op.h0.present() && steps > 0) {
      sum.accumulate = true;
      sum.k = batch, sum.a = d, sum.b = op.h0.data;
      multiply(sum);
    }
  };
  const int first = cell.gates_begin(phase), end = cell.gates_begin(phase + 1);
  const int joint = std::min(end, cell.first_split()) - first;
  if (joint > 0) add(op.gates.data + first * width, columns(), first, joint);
  for (int k = std::max(first, cell.first_split()); k < end; ++k) {
    add(saved(k - cell.first_split()), width, k, 1);
  }
}

/// One sum serves both biases, but for split gates.
template <class T>
void BackwardPass<T>::sum_biases() const {
  if (!op.d_bias_ih.present() && !op.d_bias_hh.present()) return;
  const auto add = [&](const T* values, std::int64_t count, Acc* to) {
    carousel::run(Cpu{},
                  ColumnSum<T>{.x = {values, {steps * batch, count}}, .sum = {{to, {count}}}});
  };
  add(op.gates.data, columns(), sums);
  for (int k = 0; k < cell.split; ++k) add(saved(k), width, sums + columns() + k * width);
  const std::int64_t joint = cell.first_split() * width;
  const auto write = [&](const Gradient<Acc, 1>& to, std::int64_t split) {
    for (std::int64_t k = 0; to.present() && k < columns(); ++k) {
      to.view(k) = (k < joint ? sums : sums + split)[k] + (to.accumulate ? to.view(k) : Acc{0});
    }
  };
  write(op.d_bias_ih, 0);
  write(op.d_bias_hh, cell.split * width);
}

template <class T>
void BackwardPass<T>::sum_parameters() const {
  if (!op.d_parameter.present()) return;
  const std::int64_t count = cell.parameters * width;
  carousel::run(Cpu{}, ColumnSum<Acc>{.x = {d_parameter, {batch, count}},
                                      .sum = {{op.d_parameter.view.data, {count}},
                                              op.d_parameter.accumulate}});
}

}  // namespace carousel
