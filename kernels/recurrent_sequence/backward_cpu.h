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
  bool projects;
  BatchSlices slices;
  RowOptions<Acc> options;
  Acc *d_h, *d_direct;  // of ĥ, from the step after: [B, P] by its products,
  std::array<Acc*, kMostStates - 1> d_state{};  // [B, H] past them if kept; [B, H] of ĉ …
  // A slice's part of these holds its rows that have the step, packed.
  T* d_recurrent;                 // [B, room_columns] if kept: δu, where it lies nowhere else
  Acc *d_link, *d_packed_h;       // [B, H], [B, P] if rows have ranges
  std::array<Acc*, 2> d_zoned{};  // [B, H]
  Acc* d_m;                       // [B, H] if there is a projection
  Acc *wide, *d_gain;             // [B, 2·G·H] each if normalized
  Acc* d_parameter;               // [B, parameters·H]
  std::array<Acc*, kMostStates> d_start{};  // [B, P], [B, H] … if wanted
  Acc *scale, *ones, *zeros, *sums;  // [B, P] of `variational`; [P], [max(P, H)], [(G + split)·H]
  T *zero_h, *start_h;               // [max(P, H)], and where h starts
  T *h_before, *d_projected;         // if kept, ĥ of all steps and δh: [T, B, P]
  std::uint8_t* no_mask;             // [H] zeros
  std::int64_t* list;                // [B] the rows
  PackedSteps packed;
  T *packed_d, *packed_x, *packed_units;  // [packed, G·H], [packed, I], 2 of [packed, max(P, H)]
  Acc* packed_d_x;                        // [packed, I]
  bool packs;
  std::byte *packed_hh, *packed_hr;

  BackwardPass(const RecurrentSequenceBackward<T>& backward, const CellRows<T>& rows_of_cell,
               ScratchCutter& cut)
      : SequenceShape(backward),
        op(backward),
        code(rows_of_cell),
        states(cell.states - 1),
        projects(op.weight_hr.present()),
        slices(batch),
        options(row_options<Acc>(op.options)),
        d_h(cut.take<Acc>(batch * output)),
        d_direct(cut.take<Acc>(cell.reads_h || regularized ? batch * width : 0)),
        packed(*this, cut) {
    const std::int64_t all = steps * batch, most = std::max(output, width);
    const auto units = [&](bool kept, std::int64_t n) {
      return cut.take<Acc>(kept ? batch * n : 0);
    };
    const auto stored = [&](bool kept, std::int64_t n) { return cut.take<T>(kept ? all * n : 0); };
    for (int s = 0; s < states; ++s) d_state[at(s)] = units(true, width);
    d_recurrent =
        cut.take<T>(keeps_d_recurrent(cell) || rows.present() ? batch * room_columns() : 0);
    d_link = units(cell.phases > 1, width);
    d_packed_h = units(rows.present(), output);
    for (Acc*& zoned : d_zoned) zoned = units(regularized && cell.phases > 1, width);
    d_m = units(projects, width);
    wide = units(normalizes, 2 * columns());
    d_gain = units(normalizes, 2 * columns());
    d_parameter = units(cell.parameters > 0, cell.parameters * width);
    for (int s = 0; s < cell.states; ++s) {
      d_start[at(s)] = units(op.d_start[at(s)].present(), s == 0 ? output : width);
    }
    scale = units(drops_recurrent(op.options), output);
    ones = cut.take<Acc>(most);
    zeros = cut.take<Acc>(most);
    sums = cut.take<Acc>((cell.gates + cell.split) * width);
    zero_h = cut.take<T>(most);
    start_h = cut.take<T>(most);
    no_mask = cut.take<std::uint8_t>(width);
    list = cut.take<std::int64_t>(batch);
    h_before = stored(keeps_h_before(), output);
    d_projected = stored(projects, output);
    packed_d = stored(rows.present(), columns());
    packed_x = stored(rows.present() && op.d_weight_ih.present(), input);
    packed_units = stored(rows.present(), 2 * most);
    packed_d_x = cut.take<Acc>(rows.present() && op.d_x.present() ? all * input : 0);
    // A loop's step has one product, which packing would not pay for.
    packs = steps > 1 || cell.phases > 1 || gathers || heads > 1 || projects || normalizes ||
            keeps_d_recurrent(cell);
    packed_hh = cut.take<std::byte>(
        packs && op.weight_hh.present() ? StepWeights<T>::bytes(*this, slices, false) : 0);
    packed_hr = cut.take<std::byte>(
        projects ? static_cast<std::int64_t>(PackedMatrix<T>::bytes(projection_shape())) : 0);
  }

  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
  /// Whether ĥ of some step is not h of the step before.
  bool keeps_h_before() const {
    return op.d_weight_hh.present() && (gathers || reset.present() || carried.present());
  }
  PackedShape projection_shape() const {
    return {.k = output, .n = width, .rows = slices.most_rows()};
  }
  T* gates(std::int64_t n) const { return op.gates.data + n * columns(); }
  T* saved(int which) const { return op.saved.data + which * steps * batch * width; }
  T* normal(int which, std::int64_t n) const {
    return op.normal.data + (which * steps * batch + n) * columns();
  }
  Acc deviation(int which, std::int64_t n) const {
    return op.deviation.data[which * steps * batch + n];
  }
  /// Where ĥ of a step is; where there is none, zeros or what h starts from.
  const T* before_h(std::int64_t t, std::int64_t row) const {
    return before<T>(op.h, op.h0, t, row, start_h);
  }
  const Acc* start_state(int s) const {
    const View<const Acc, 1>& start = op.start[at(s) + 1];
    return start.present() ? start.data : zeros;
  }

  void start_row(std::int64_t row) const {
    for (std::int64_t j = row * output; j < (row + 1) * output; ++j) {
      d_h[j] = op.d_h_last.present() ? static_cast<Acc>(op.d_h_last.data[j]) : Acc{0};
    }
    if (d_direct != nullptr) std::fill_n(d_direct + row * width, width, Acc{0});
    for (std::int64_t s = 0; s < states; ++s) {
      const View<const Acc, 2>& last = op.d_state_last[at(s)];
      Acc* const to = d_state[at(s)] + row * width;
      if (last.present()) {
        std::copy_n(last.data + row * width, width, to);
      } else {
        std::fill_n(to, width, Acc{0});
      }
    }
    if (d_link != nullptr) std::fill_n(d_link + row * width, width, Acc{0});
    if (d_parameter != nullptr) {
      std::fill_n(d_parameter + row * cell.parameters * width, cell.parameters * width, Acc{0});
    }
    if (normalizes) std::fill_n(d_gain + row * 2 * columns(), 2 * columns(), Acc{0});
    for (std::size_t s = 0; s < d_start.size(); ++s) {
      const std::int64_t n = s == 0 ? output : width;
      if (d_start[s] != nullptr) std::fill_n(d_start[s] + row * n, n, Acc{0});
    }
  }

  void clear_row(std::int64_t t, std::int64_t row) const {
    const std::int64_t n = t * batch + row;
    std::fill_n(gates(n), columns(), T{});
    for (int k = 0; k < op.saved_count(); ++k) std::fill_n(saved(k) + n * width, width, T{});
    for (int k = 0; normalizes && k < 2; ++k) std::fill_n(normal(k, n), columns(), T{});
    if (projects) std::fill_n(d_projected + n * output, output, T{});
  }

  /// What flows out of the step after t into h (s = 0) or another state of a row, or from outside
  /// into its last step, is added to `to`. Nothing crosses a reset.
  void add_flow(std::size_t s, bool from_outside, std::int64_t row, Acc* to) const {
    if (s > 0) {
      for (std::int64_t j = 0; j < width; ++j) to[j] += d_state[s - 1][row * width + j];
      return;
    }
    const Acc* const counts = from_outside || scale == nullptr ? ones : scale + row * output;
    const bool multiplied = from_outside || op.weight_hh.present();
    for (std::int64_t j = 0; multiplied && j < output; ++j)
      to[j] += d_h[row * output + j] * counts[j];
    if (from_outside || projects || d_direct == nullptr) return;
    for (std::int64_t j = 0; j < output; ++j) to[j] += d_direct[row * width + j];
  }
  void add_to_start(bool from_outside, std::int64_t row, std::size_t s) const {
    if (d_start[s] != nullptr) {
      add_flow(s, from_outside, row, d_start[s] + row * (s == 0 ? output : width));
    }
  }

  /// Where the gradients of a row's states after step t come from.
  struct Flow {
    bool from_outside, cut;
  };
  Flow flow(std::int64_t t, std::int64_t row) const {
    const bool last = t == last_step(row);
    return {.from_outside = last, .cut = !last && cut(step_after(t), row)};
  }
  const Acc* product_of(const Flow& from, std::int64_t row) const {
    const bool there = from.from_outside || (!from.cut && op.weight_hh.present());
    return there ? d_h + row * output : zeros;
  }
  const Acc* scale_of_product(const Flow& from, std::int64_t row) const {
    return from.from_outside || scale == nullptr ? ones : scale + row * output;
  }

  /// δh of the rows of a slice, and δm = W_hrᵀ·δh.
  void project(const PackedMatrix<T>& weight, std::int64_t t, std::int64_t first,
               std::int64_t count) const {
    for (std::int64_t i = first; i < first + count; ++i) {
      const std::int64_t row = list[i], n = (t * batch + row) * output;
      const Flow from = flow(t, row);
      const Acc *const product = product_of(from, row), *const counts = scale_of_product(from, row);
      for (std::int64_t j = 0; j < output; ++j) {
        const Acc own = op.d_h.present() ? static_cast<Acc>(op.d_h.data[n + j]) : Acc{0};
        cell_rows::store(d_projected + n + j, own + product[j] * counts[j]);
      }
    }
    weight.multiply(count, step_of(d_projected, output, t, first, count), d_m + first * width,
                    false);
  }

  void run_row(int phase, std::int64_t t, std::int64_t first, std::int64_t i) const {
    const std::int64_t row = list[first + i], n = t * batch + row;
    const Flow from = flow(t, row);
    const bool begins_after = from.from_outside || from.cut;
    Acc* const own_direct = d_direct == nullptr ? nullptr : d_direct + row * width;
    T* const own_d_recurrent =
        keeps_d_recurrent(cell) ? room(first) + i * columns_of(phase) : nullptr;
    RowBackward<T> step{.width = width,
                        .gates = gates(n),
                        .d_recurrent = own_d_recurrent,
                        .parameter = op.parameter.data,
                        .d_parameter = d_parameter + row * cell.parameters * width,
                        .h_before = projects ? zero_h : before_h(t, row),
                        .h = projects ? saved(cell.saved()) + n * width : op.h.data + n * width,
                        .d_h = op.d_h.present() && !projects ? op.d_h.data + n * width : zero_h,
                        .d_h_product = projects ? d_m + (first + i) * width : product_of(from, row),
                        .product_scale = projects ? ones : scale_of_product(from, row),
                        .d_h_after = begins_after ? zeros : own_direct,
                        .d_h_before = own_direct,
                        .d_link = cell.phases > 1 ? d_link + (first + i) * width : nullptr,
                        .mask = op.options.draws() ? op.mask.data + n * width : no_mask,
                        .options = options};
    for (std::size_t s = 0; s < at(states); ++s) {
      step.state_before[s] =
          before<Acc>(op.state[s], op.state0[s], t, row, start_state(static_cast<int>(s)));
      step.state[s] = op.state[s].data + n * width;
      step.d_state_before[s] = d_state[s] + row * width;
      step.d_state_after[s] = from.cut ? zeros : step.d_state_before[s];
    }
    for (int k = 0; k < cell.saved(); ++k) step.saved[at(k)] = saved(k) + n * width;
    for (std::size_t k = 0; k < d_zoned.size(); ++k) {
      if (d_zoned[k] != nullptr) step.d_zoned[k] = d_zoned[k] + row * width;
    }
    if (from.cut && phase + 1 == cell.phases) {
      for (std::size_t s = 0; s < d_start.size(); ++s) add_to_start(false, row, s);
    }
    code.backward[regularized][at(phase)](step);
    if (cell.is_normalized(phase)) {
      normalize_row_backward<T>(step.d_link, width, deviation((normalizes ? 2 : 0) + phase - 1, n),
                                nullptr, nullptr, step.saved[at(cell.split + phase - 1)], false);
    }
    if (phase > 0) return;
    if (normalizes) {
      normalize_parts(row, n, own_d_recurrent == nullptr ? gates(n) : own_d_recurrent);
    }
    keep_h_before(t, row);
  }

  /// From the gradients of what leaves the normalizations of both parts those of what enters them.
  void normalize_parts(std::int64_t row, std::int64_t n, const T* d_u) const {
    for (int part = 0; part < 2; ++part) {
      const std::int64_t own = (row * 2 + part) * columns();
      const T* const from = part == 0 ? gates(n) : d_u;
      for (std::int64_t j = 0; j < columns(); ++j) wide[own + j] = cell_rows::widened(from + j);
      normalize_row_backward<T>(wide + own, columns(), deviation(part, n),
                                op.gain.data + part * columns(), d_gain + own, normal(part, n),
                                true);
    }
  }

  void keep_h_before(std::int64_t t, std::int64_t row) const {
    if (!keeps_h_before()) return;
    const std::int64_t n = t * batch + row;
    const T* const from = before_h(t, row);
    T* const to = h_before + (rows.present() ? packed.index[n] : n) * output;
    std::copy_n(from, output, to);
    for (std::int64_t j = 0; scale != nullptr && j < output; ++j) {
      cell_rows::store(to + j, cell_rows::widened(from + j) * scale[row * output + j]);
    }
  }

  /// δu of a phase, or the δh of a projection, which may be wider.
  std::int64_t room_columns() const { return std::max(most_columns(), projects ? output : 0); }
  /// A slice's part of `d_recurrent`.
  T* room(std::int64_t first) const {
    return d_recurrent == nullptr ? nullptr : d_recurrent + first * room_columns();
  }
  /// Step t of a buffer [T, B, n], of the `count` rows of a slice.
  const T* step_of(const T* sequence, std::int64_t n, std::int64_t t, std::int64_t first,
                   std::int64_t count) const {
    return packed_step<T>(sequence, n, t, first, count, list + first, room(first));
  }

  /// The product of a phase: what its δu bring to what it multiplied.
  void multiply_step(const StepWeights<T>& weights, int phase, std::int64_t visit,
                     std::int64_t first, std::int64_t count) const {
    const bool wanted = phase > 0 || visit > 0 || op.d_h0.present() || op.d_start[0].present();
    if (!weights.present() || cell.gates_of(phase) == 0 || !wanted) return;
    const T* from = room(first);
    if ((normalizes && phase == 0) || !keeps_d_recurrent(cell)) {
      from = step_of(normalizes ? normal(1, 0) : gates(0), columns(), time(visit), first, count);
    }
    if (phase > 0) return weights.backward(phase, count, from, d_link + first * width);
    if (!rows.present()) return weights.backward(phase, count, from, d_h + first * output);
    weights.backward(phase, count, from, d_packed_h + first * output);
    for (std::int64_t i = first; i < first + count; ++i) {
      std::copy_n(d_packed_h + i * output, output, d_h + list[i] * output);
    }
  }

  /// What flows out of a row's first step, or through a row of no steps.
  void finish_row(std::int64_t row) const {
    const bool empty = is_empty(row);
    const bool begins =
        (carried.present() && carried(row) == 0) || (!empty && cut(first_step(row), row));
    const auto write = [&](std::size_t s, const auto& to, bool has_initial, std::int64_t n) {
      if (begins || !has_initial) add_to_start(empty, row, s);
      if (!to.present()) return;
      Acc* const sum = s == 0 ? whole_d_h(row) : d_state[s - 1] + row * n;
      for (std::int64_t j = 0; j < n; ++j) {
        auto& out = to.view.data[row * n + j];
        const Acc old = to.accumulate ? static_cast<Acc>(out) : Acc{0};
        out = static_cast<std::remove_reference_t<decltype(out)>>(old + (begins ? Acc{0} : sum[j]));
      }
    };
    write(0, op.d_h0, op.h0.present(), output);
    for (std::size_t s = 1; s <= at(states); ++s) {
      write(s, op.d_state0[s - 1], op.state0[s - 1].present(), width);
    }
  }
  /// The gradient of h before a row's first step, over the product's part of it.
  Acc* whole_d_h(std::int64_t row) const {
    Acc* const own = d_h + row * output;
    const bool multiplied = is_empty(row) || op.weight_hh.present();
    const Acc* const counts = is_empty(row) || scale == nullptr ? ones : scale + row * output;
    const bool adds = !is_empty(row) && !projects && d_direct != nullptr;
    for (std::int64_t j = 0; j < output; ++j) {
      own[j] =
          (multiplied ? own[j] * counts[j] : Acc{0}) + (adds ? d_direct[row * width + j] : Acc{0});
    }
    return own;
  }

  void prepare() {
    const std::int64_t most = std::max(output, width);
    std::fill_n(zeros, most, Acc{0});
    std::fill_n(ones, most, Acc{1});
    std::fill_n(zero_h, most, T{});
    std::fill_n(start_h, most, T{});
    std::fill_n(no_mask, width, std::uint8_t{0});
    for (std::int64_t j = 0; op.start[0].present() && j < output; ++j) {
      cell_rows::store(start_h + j, op.start[0].data[j]);
    }
    if (rows.present()) packed.find(*this);
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
    if (packs && op.weight_hh.present()) weights.pack(op.weight_hh, slices, false, packed_hh);
    if (projects) weight_hr.emplace(projection_shape(), op.weight_hr.data, false, packed_hr);
    slices.note();
    slices.for_each([&](std::int64_t first, std::int64_t last) {
      std::int64_t count = last - first;
      for (std::int64_t row = first; row < last; ++row) start_row(row);
      for (std::int64_t visit = steps; visit-- > 0;) {
        const std::int64_t t = time(visit);
        if (rows.present()) count = active(t, first, last, list + first);
        for (std::int64_t row = first; count < last - first && row < last; ++row) {
          if (!has(t, row)) clear_row(t, row);
        }
        if (projects) project(*weight_hr, t, first, count);
        for (int phase = cell.phases; phase-- > 0;) {
          for_rows(0, count, width, [&](std::int64_t i) { run_row(phase, t, first, i); });
          multiply_step(weights, phase, visit, first, count);
        }
      }
      for (std::int64_t row = first; packs && row < last; ++row) finish_row(row);
    });
    if (!packs) finish_one_step();
    sum_over_steps();
  }

  /// Of all rows at once, where the weights are not packed.
  void finish_one_step() {
    if (op.weight_hh.present() && op.d_h0.present()) {
      multiply(CpuProduct<T, Acc>{.m = steps * batch,
                                  .n = output,
                                  .k = columns(),
                                  .a = op.gates.data,
                                  .b = op.weight_hh.data,
                                  .c = d_h});
    }
    for_rows(0, batch, width, [&](std::int64_t row) { finish_row(row); });
  }

  void sum_over_steps() const;
};

}  // namespace carousel
