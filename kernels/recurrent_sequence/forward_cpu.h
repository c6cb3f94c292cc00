#pragma once

#include "kernels/recurrent_sequence/loop_cpu.h"

namespace carousel {

template <class T>
struct ForwardPass : SequenceShape {
  using Acc = Accumulator<T>;
  const RecurrentSequenceForward<T>& op;
  const CellRows<T>& code;
  int states;  // besides h
  BatchSlices slices;
  Acc *recurrent, *bias, *recurrent_bias, *zeros;  // [B, columns], [G·H], [split·H], [G·H]
  T* no_h;                                         // [H] zeros
  Acc* operand;  // [B, H] if kept: what a slice's next product reads, where that is not in `h`
  bool packs;
  std::array<std::byte*, kMostPhases> packed{};

  ForwardPass(const RecurrentSequenceForward<T>& forward, const CellRows<T>& rows_of_cell,
              ScratchCutter& cut)
      : SequenceShape(forward),
        op(forward),
        code(rows_of_cell),
        states(cell.states - 1),
        slices(batch),
        recurrent(cut.take<Acc>(batch * most_columns())),
        bias(cut.take<Acc>(columns())),
        recurrent_bias(cut.take<Acc>(cell.split * width)),
        zeros(cut.take<Acc>(columns())),
        no_h(cut.take<T>(width)),
        operand(cut.take<Acc>(keeps_operand() ? batch * width : 0)),
        // Packing costs more than a product of few rows, and a step of generation has no second one.
        packs(op.weight_hh.present() && (steps > 1 || cell.phases > 1)) {
    for (int p = 0; packs && p < cell.phases; ++p) {
      packed[p] =
          cut.take<std::byte>(static_cast<std::int64_t>(PackedMatrix<Acc>::bytes(weight_shape(p))));
    }
  }

  bool keeps_operand() const { return kWidened<T> || rows.present(); }
  PackedShape weight_shape(int phase) const {
    return {.k = width, .n = columns_of(phase), .rows = slices.most_rows()};
  }

  /// Of the slice that begins with row `first`.
  Acc* recurrent_row(int phase, std::int64_t first, std::int64_t row) const {
    return recurrent + first * most_columns() + (row - first) * columns_of(phase);
  }
  /// What phase p of step t multiplies, of the rows from `first` on; null: zero.
  const Acc* operand_of(int phase, std::int64_t t, std::int64_t first) const {
    if constexpr (!kWidened<T>) {
      if (phase > 0) return saved(cell.split + phase - 1) + place(t, first);
      if (!keeps_operand() && t > 0) return op.h.data + place(t - 1, first);
      if (!keeps_operand()) return op.h0.present() ? op.h0.data + first * width : nullptr;
    } else {
      if (t == 0 && phase == 0 && !op.h0.present()) return nullptr;
    }
    return operand + first * width;
  }
  T* saved(int which) const { return op.saved.data + which * steps * batch * width; }

  void clear_row(std::int64_t t, std::int64_t row) const {
    std::fill_n(op.gates.data + place(t, row) * cell.gates, columns(), T{});
    std::fill_n(op.h.data + place(t, row), width, T{});
    for (int s = 0; s < states; ++s) std::fill_n(op.state[s].data + place(t, row), width, Acc{0});
    for (int k = 0; k < cell.saved(); ++k) std::fill_n(saved(k) + place(t, row), width, T{});
  }

  void run_row(int phase, std::int64_t t, std::int64_t first, std::int64_t row) const {
    if (!has(t, row)) return clear_row(t, row);
    const T* const h_before = before<T>(op.h, op.h0, t, row, no_h);
    const bool multiplied = op.weight_hh.present() && (phase > 0 || h_before != no_h);
    RowForward<T> step{.width = width,
                       .gates = op.gates.data + place(t, row) * cell.gates,
                       .recurrent = multiplied ? recurrent_row(phase, first, row) : zeros,
                       .bias = bias,
                       .recurrent_bias = recurrent_bias,
                       .parameter = op.parameter.data,
                       .h_before = h_before,
                       .h = op.h.data + place(t, row),
                       .operand = keeps_operand() ? operand + row * width : nullptr};
    for (int s = 0; s < states; ++s) {
      step.state_before[s] = before<Acc>(op.state[s], op.state0[s], t, row, zeros);
      step.state[s] = op.state[s].data + place(t, row);
    }
    for (int k = 0; k < cell.saved(); ++k) step.saved[k] = saved(k) + place(t, row);
    code.forward[phase](step);
    if constexpr (!kWidened<T>) {
      if (keeps_operand() && phase + 1 == cell.phases) std::copy_n(step.h, width, step.operand);
    }
  }

  void finish_row(std::int64_t row) const {
    const std::int64_t end = is_empty(row) ? range(row).first : range(row).second;
    const auto last = [&](const auto& sequence, const auto& initial, const auto& to, auto* absent) {
      if (!to.present()) return;
      const auto* from = absent;
      if (!is_empty(row)) {
        from = sequence.data + place(end - 1, row);
      } else if (initial.present()) {
        from = initial.data + row * width;
      }
      std::copy_n(from, width, to.data + row * width);
    };
    last(op.h, op.h0, op.h_last, no_h);
    for (int s = 0; s < states; ++s) last(op.state[s], op.state0[s], op.state_last[s], zeros);
  }

  void prepare() const {
    multiply(CpuProduct<T>{.transpose_b = true,
                           .m = steps * batch,
                           .n = columns(),
                           .k = op.x.extent[2],
                           .a = op.x.data,
                           .b = op.weight_ih.data,
                           .c = op.gates.data});
    std::fill_n(zeros, columns(), Acc{0});
    std::fill_n(no_h, width, T{});
    const std::int64_t first_split = cell.first_split() * width;
    for (std::int64_t k = 0; k < columns(); ++k) {
      const bool given = op.bias_ih.present();
      bias[k] = given ? op.bias_ih(k) + (k < first_split ? op.bias_hh(k) : Acc{0}) : Acc{0};
      if (k >= first_split) recurrent_bias[k - first_split] = given ? op.bias_hh(k) : Acc{0};
    }
    if (!keeps_operand()) return;
    if (op.h0.present()) {
      std::copy_n(op.h0.data, batch * width, operand);
    } else {
      std::fill_n(operand, batch * width, Acc{0});
    }
  }

  void run() const {
    prepare();
    std::array<std::optional<PackedMatrix<Acc>>, kMostPhases> weight;
    for (int p = 0; packs && p < cell.phases; ++p) {
      weight[p].emplace(weight_shape(p), op.weight_hh.data + cell.gates_begin(p) * width * width,
                        true, packed[p]);
    }
    if (op.weight_hh.present() && !packs && op.h0.present()) {
      multiply(CpuProduct<T, Acc>{.transpose_b = true,
                                  .m = batch,
                                  .n = columns(),
                                  .k = width,
                                  .a = op.h0.data,
                                  .b = op.weight_hh.data,
                                  .c = recurrent});
    }
    slices.note();
    slices.for_each([&](std::int64_t first, std::int64_t last) {
      for (std::int64_t t = 0; t < steps; ++t) {
        for (int phase = 0; phase < cell.phases; ++phase) {
          const Acc* const by = operand_of(phase, t, first);
          if (weight[phase] && by != nullptr) {
            weight[phase]->multiply(last - first, by, recurrent_row(phase, first, first), false);
          }
          for_rows(first, last, width, [&](std::int64_t row) { run_row(phase, t, first, row); });
        }
      }
      for (std::int64_t row = first; row < last; ++row) finish_row(row);
    });
  }
};

}  // namespace carousel
