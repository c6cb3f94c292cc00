#pragma once

#include "kernels/recurrent_sequence/loop_cpu.h"

namespace carousel {

template <class T>
struct ForwardPass : SequenceShape {
  using Acc = Accumulator<T>;
  const RecurrentSequenceForward<T>& op;
  const CellRows<T>& code;
  int states;  // besides h
  bool projects;
  BatchSlices slices;
  RowOptions<Acc> options;
  // A slice's part of a buffer [B, …] holds its rows that have the step, packed.
  Acc *recurrent, *bias, *recurrent_bias, *zeros;  // [B, columns], [G·H], [split·H], [G·H]
  T* start_h;                                      // [P] where h starts
  std::uint8_t* no_mask;                           // [H] zeros
  T* operand;  // [B, max(P, H)] if kept: what a product reads, where it lies nowhere else
  Acc* link;   // [B, H] if a phase is normalized: its operand before that
  Acc *scale, *projected;  // [B, P] of `variational`, by row; [B, P] h before it is rounded
  std::int64_t* list;      // [B] the rows
  PackedSteps packed;
  T *packed_x, *packed_input;  // [packed, I], [packed, G·H] if rows have ranges
  bool packs;
  std::byte *packed_hh, *packed_hr;

  ForwardPass(const RecurrentSequenceForward<T>& forward, const CellRows<T>& rows_of_cell,
              ScratchCutter& cut)
      : SequenceShape(forward),
        op(forward),
        code(rows_of_cell),
        states(cell.states - 1),
        projects(op.weight_hr.present()),
        slices(batch),
        options(row_options<Acc>(op.options)),
        recurrent(cut.take<Acc>(batch * most_columns())),
        bias(cut.take<Acc>(columns())),
        recurrent_bias(cut.take<Acc>(cell.split * width)),
        zeros(cut.take<Acc>(columns())),
        start_h(cut.take<T>(std::max(output, width))),
        no_mask(cut.take<std::uint8_t>(width)),
        operand(cut.take<T>(gathers ? batch * std::max(output, width) : 0)),
        link(cut.take<Acc>(cell.normalized_phases() > 0 ? batch * width : 0)),
        scale(cut.take<Acc>(drops_recurrent(op.options) ? batch * output : 0)),
        projected(cut.take<Acc>(projects ? batch * output : 0)),
        list(cut.take<std::int64_t>(batch)),
        packed(*this, cut),
        packed_x(cut.take<T>(rows.present() ? op.x.size() : 0)),
        packed_input(cut.take<T>(rows.present() ? op.gates.size() : 0)),
        // Packing costs more than a product of few rows, and a step of generation has no second one.
        packs(steps > 1 || cell.phases > 1 || gathers || heads > 1),
        packed_hh(cut.take<std::byte>(
            packs && op.weight_hh.present() ? StepWeights<T>::bytes(*this, slices, true) : 0)),
        packed_hr(cut.take<std::byte>(
            packs && projects
                ? static_cast<std::int64_t>(PackedMatrix<T>::bytes(projection_shape()))
                : 0)) {}

  PackedShape projection_shape() const {
    return {.k = width, .n = output, .rows = slices.most_rows()};
  }
  /// Of a tensor [T, B, …], the row of a step.
  std::int64_t at(std::int64_t t, std::int64_t row) const { return t * batch + row; }
  T* saved(int which) const { return op.saved.data + which * steps * batch * width; }
  T* normal(int which, std::int64_t n) const {
    return op.normal.data + (which * steps * batch + n) * columns();
  }
  Acc& deviation(int which, std::int64_t n) const {
    return op.deviation.data[which * steps * batch + n];
  }
  T* input_row(std::int64_t n) const {
    return rows.present() ? packed_input + packed.index[n] * columns()
                          : op.gates.data + n * columns();
  }
  const T* h_before(std::int64_t t, std::int64_t row) const {
    return before<T>(op.h, op.h0, t, row, start_h);
  }
  const Acc* start_state(int s) const {
    const View<const Acc, 1>& start = op.start[static_cast<std::size_t>(s) + 1];
    return start.present() ? start.data : zeros;
  }

  void clear_row(std::int64_t t, std::int64_t row) const {
    const std::int64_t n = at(t, row);
    std::fill_n(op.gates.data + n * columns(), columns(), T{});
    std::fill_n(op.h.data + n * output, output, T{});
    for (int s = 0; s < states; ++s) std::fill_n(op.state[s].data + n * width, width, Acc{0});
    for (int k = 0; k < op.saved_count(); ++k) std::fill_n(saved(k) + n * width, width, T{});
    for (int k = 0; normalizes && k < 2; ++k) std::fill_n(normal(k, n), columns(), T{});
    for (int k = 0; k < op.normalizations(); ++k) deviation(k, n) = 0;
    if (op.options.draws()) std::fill_n(op.mask.data + n * width, width, std::uint8_t{0});
  }

  /// A slice's part of `operand`.
  T* room(std::int64_t first) const {
    return operand == nullptr ? nullptr : operand + first * std::max(output, width);
  }
  /// Step t of a buffer [T, B, H], of the `count` rows of a slice.
  const T* step_of(const T* sequence, std::int64_t t, std::int64_t first,
                   std::int64_t count) const {
    return packed_step<T>(sequence, width, t, first, count, list + first, room(first));
  }
  /// What phase p of step t multiplies, of the `count` rows of a slice; null: zero.
  const T* operand_of(int phase, std::int64_t visit, std::int64_t first, std::int64_t count) const {
    const std::int64_t t = time(visit);
    if (phase > 0) return step_of(saved(cell.split + phase - 1), t, first, count);
    if (gathers) {
      for (std::int64_t i = 0; i < count; ++i) {
        gather_operand(t, list[first + i], room(first) + i * output);
      }
      return room(first);
    }
    if (visit > 0) return op.h.data + at(step_before(t), first) * output;
    return op.h0.present() ? op.h0.data + first * output : nullptr;
  }
  void gather_operand(std::int64_t t, std::int64_t row, T* to) const {
    const T* const from = h_before(t, row);
    if (scale == nullptr) {
      std::copy_n(from, output, to);
      return;
    }
    for (std::int64_t j = 0; j < output; ++j) {
      cell_rows::store(to + j, cell_rows::widened(from + j) * scale[row * output + j]);
    }
  }

  void run_row(int phase, std::int64_t t, std::int64_t first, std::int64_t i) const {
    const std::int64_t row = list[first + i], n = at(t, row);
    const T* const found = h_before(t, row);
    const bool multiplied =
        op.weight_hh.present() && (phase > 0 || found != start_h || op.start[0].present());
    Acc* const own_recurrent = recurrent + first * most_columns() + i * columns_of(phase);
    Acc* const own_link = link == nullptr ? nullptr : link + (first + i) * width;
    if (normalizes && phase == 0) {
      if (!multiplied) std::fill_n(normal(1, n), columns(), T{});
      deviation(1, n) = multiplied ? normalize_row<T>(own_recurrent, columns(),
                                                      op.gain.data + columns(), normal(1, n))
                                   : Acc{0};
    }
    std::uint8_t* const mask = op.options.draws() ? op.mask.data + n * width : no_mask;
    if (op.options.draws() && phase == 0) {
      draw_mask(op.options, static_cast<std::uint64_t>(n * width), width, mask);
    }
    RowForward<T> step{.width = width,
                       .input = input_row(n),
                       .gates = op.gates.data + n * columns(),
                       .recurrent = multiplied ? own_recurrent : zeros,
                       .bias = bias,
                       .recurrent_bias = recurrent_bias,
                       .parameter = op.parameter.data,
                       .h_before = projects ? start_h : found,
                       .h = projects ? saved(cell.saved()) + n * width : op.h.data + n * width,
                       .link = own_link,
                       .mask = mask,
                       .options = options};
    for (int s = 0; s < states; ++s) {
      step.state_before[s] = before<Acc>(op.state[s], op.state0[s], t, row, start_state(s));
      step.state[s] = op.state[s].data + n * width;
    }
    for (int k = 0; k < cell.saved(); ++k) step.saved[k] = saved(k) + n * width;
    code.forward[regularized][phase](step);
    if (cell.is_normalized(phase + 1)) {
      deviation((normalizes ? 2 : 0) + phase, n) =
          normalize_row<T>(own_link, width, nullptr, step.saved[cell.split + phase]);
    }
  }

  /// h[t] = W_hr·m of the `count` rows of a slice.
  void project(const std::optional<PackedMatrix<T>>& weight, std::int64_t t, std::int64_t first,
               std::int64_t count) const {
    const T* const from = step_of(saved(cell.saved()), t, first, count);
    Acc* const to = projected + first * output;
    if (!weight) {
      multiply(CpuProduct<T, Acc>{.transpose_b = true,
                                  .m = count,
                                  .n = output,
                                  .k = width,
                                  .a = from,
                                  .b = op.weight_hr.data,
                                  .c = to});
    } else {
      weight->multiply(count, from, to, false);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      T* const h = op.h.data + at(t, list[first + i]) * output;
      for (std::int64_t j = 0; j < output; ++j) cell_rows::store(h + j, to[i * output + j]);
    }
  }

  void finish_row(std::int64_t row) const {
    const bool begins = carried.present() && carried(row) == 0;
    const auto last = [&](const auto& sequence, const auto& initial, const auto& to, auto* start) {
      if (!to.present()) return;
      const std::int64_t n = sequence.extent[2];
      const auto* from = start;
      if (!is_empty(row)) {
        from = sequence.data + at(last_step(row), row) * n;
      } else if (initial.present() && !begins) {
        from = initial.data + row * n;
      }
      std::copy_n(from, n, to.data + row * n);
    };
    last(op.h, op.h0, op.h_last, start_h);
    for (int s = 0; s < states; ++s) {
      last(op.state[s], op.state0[s], op.state_last[s], start_state(s));
    }
  }

  void multiply_inputs() {
    const T* x = op.x.data;
    if (rows.present()) {
      packed.find(*this);
      x = packed.gather(x, input, input, packed_x);
    }
    multiply(CpuProduct<T>{.transpose_b = true,
                           .m = rows.present() ? packed.count : steps * batch,
                           .n = columns(),
                           .k = input,
                           .a = x,
                           .b = op.weight_ih.data,
                           .c = rows.present() ? packed_input : op.gates.data});
    if (!normalizes) return;
#pragma omp parallel for schedule(static)
    for (std::int64_t row = 0; row < batch; ++row) {
      Acc* const wide = recurrent + row * columns();
      for (std::int64_t n = row; n < steps * batch; n += batch) {
        if (!has(n / batch, row)) continue;
        T* const part = input_row(n);
        for (std::int64_t j = 0; j < columns(); ++j) wide[j] = cell_rows::widened(part + j);
        deviation(0, n) = normalize_row<T>(wide, columns(), op.gain.data, normal(0, n));
        for (std::int64_t j = 0; j < columns(); ++j) cell_rows::store(part + j, wide[j]);
      }
    }
  }

  void prepare() {
    multiply_inputs();
    std::fill_n(zeros, columns(), Acc{0});
    std::fill_n(no_mask, width, std::uint8_t{0});
    std::fill_n(start_h, std::max(output, width), T{});
    for (std::int64_t j = 0; op.start[0].present() && j < output; ++j) {
      cell_rows::store(start_h + j, op.start[0].data[j]);
    }
    const std::int64_t first_split = cell.first_split() * width;
    for (std::int64_t k = 0; k < columns(); ++k) {
      const bool given = op.bias_hh.present();
      bias[k] = op.bias_ih.present() ? op.bias_ih(k) : Acc{0};
      if (k < first_split && given) bias[k] += op.bias_hh(k);
      if (k >= first_split) recurrent_bias[k - first_split] = given ? op.bias_hh(k) : Acc{0};
    }
    for (std::int64_t row = 0; row < batch; ++row) {
      list[row] = row;
      if (scale != nullptr) {
        draw_recurrent_scale(op.options, static_cast<std::uint64_t>(row * output), output,
                             scale + row * output);
      }
    }
  }

  void run() {
    prepare();
    StepWeights<T> weights{*this};
    std::optional<PackedMatrix<T>> weight_hr;
    if (packs && op.weight_hh.present()) weights.pack(op.weight_hh, slices, true, packed_hh);
    if (packs && projects) {
      weight_hr.emplace(projection_shape(), op.weight_hr.data, true, packed_hr);
    }
    if (op.weight_hh.present() && !packs && op.h0.present()) {
      multiply(CpuProduct<T, Acc>{.transpose_b = true,
                                  .m = batch,
                                  .n = columns(),
                                  .k = output,
                                  .a = op.h0.data,
                                  .b = op.weight_hh.data,
                                  .c = recurrent});
    }
    slices.note();
    slices.for_each([&](std::int64_t first, std::int64_t last) {
      std::int64_t count = last - first;
      for (std::int64_t visit = 0; visit < steps; ++visit) {
        const std::int64_t t = time(visit);
        if (rows.present()) count = active(t, first, last, list + first);
        for (std::int64_t row = first; count < last - first && row < last; ++row) {
          if (!has(t, row)) clear_row(t, row);
        }
        for (int phase = 0; phase < cell.phases; ++phase) {
          if (weights.present() && cell.gates_of(phase) > 0) {
            const T* const by = operand_of(phase, visit, first, count);
            if (by != nullptr) {
              weights.forward(phase, count, by, recurrent + first * most_columns());
            }
          }
          for_rows(0, count, width, [&](std::int64_t i) { run_row(phase, t, first, i); });
        }
        if (projects) project(weight_hr, t, first, count);
      }
      for (std::int64_t row = first; row < last; ++row) finish_row(row);
    });
  }
};

}  // namespace carousel
