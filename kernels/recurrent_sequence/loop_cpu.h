#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/common/cpu_product.h"
#include "kernels/common/cpu_rows.h"
#include "kernels/common/scratch.h"
#include "kernels/recurrent_sequence/cell_rows.h"
#include "kernels/recurrent_sequence/recurrent_sequence.h"
#include "kernels/recurrent_sequence/row_stages.h"

namespace carousel {

/// The time loop with a cell's row loops given, whether or not the cell is in the table.
template <class T>
void run_cell(const Cpu& device, const RecurrentSequenceForward<T>& op, const CellRows<T>& rows);
template <class T>
void run_cell(const Cpu& device, const RecurrentSequenceBackward<T>& op, const CellRows<T>& rows);

/// What both passes know of the sequence: its sizes, and which step of which row follows on what.
/// Steps are visited in the order of time(0), time(1), … forward, and from the end backward.
struct SequenceShape {
  const CellInfo& cell;
  std::int64_t steps, batch, input, width, output, heads;  // T, B, I, H, P
  bool reverse, normalizes, regularized, gathers;
  View<const std::int32_t, 2> reset;
  View<const std::int32_t, 1> carried;
  RowRangeView rows;

  template <class Op>
  explicit SequenceShape(const Op& op)
      : cell(*op.cell),
        steps(op.h.extent[0]),
        batch(op.h.extent[1]),
        input(op.x.extent[2]),
        width(op.gates.extent[2] / cell.gates),
        output(op.h.extent[2]),
        heads(op.weight_hh.present() && op.weight_hh.extent[1] > 0 ? output / op.weight_hh.extent[1]
                                                                   : 1),
        reverse(op.reverse),
        normalizes(op.gain.present()),
        regularized(normalizes || op.options.any()),
        gathers(op.rows.present() || op.start[0].present() || drops_recurrent(op.options)),
        reset(op.reset),
        carried(op.carried),
        rows(op.rows) {}

  static bool drops_recurrent(const RecurrentOptions& options) {
    return options.training && options.variational > 0;
  }
  std::int64_t columns() const { return cell.gates * width; }
  std::int64_t columns_of(int phase) const { return cell.gates_of(phase) * width; }
  std::int64_t most_columns() const {
    std::int64_t most = 0;
    for (int p = 0; p < cell.phases; ++p) most = std::max(most, columns_of(p));
    return most;
  }
  /// Of the vector that phase p multiplies.
  std::int64_t operand_width(int phase) const { return phase == 0 ? output : width; }

  std::int64_t time(std::int64_t visit) const { return reverse ? steps - 1 - visit : visit; }
  std::int64_t step_before(std::int64_t t) const { return reverse ? t + 1 : t - 1; }
  std::int64_t step_after(std::int64_t t) const { return reverse ? t - 1 : t + 1; }

  /// The steps [first, second) of a row.
  std::pair<std::int64_t, std::int64_t> range(std::int64_t row) const {
    if (!rows.present()) return {0, steps};
    const auto clamped = [this](std::int64_t t) { return std::clamp<std::int64_t>(t, 0, steps); };
    return {rows.begin.present() ? clamped(rows.begin(row)) : 0,
            rows.end.present() ? clamped(rows.end(row)) : steps};
  }
  bool is_empty(std::int64_t row) const { return range(row).first >= range(row).second; }
  bool has(std::int64_t t, std::int64_t row) const {
    const auto [begin, end] = range(row);
    return begin <= t && t < end;
  }
  std::int64_t first_step(std::int64_t row) const {
    return reverse ? range(row).second - 1 : range(row).first;
  }
  std::int64_t last_step(std::int64_t row) const {
    return reverse ? range(row).first : range(row).second - 1;
  }
  /// Whether a reset lies between step t and the step before it. One outside the range is none.
  bool cut(std::int64_t t, std::int64_t row) const {
    const std::int64_t later = reverse ? t + 1 : t;
    return reset.present() && has(later, row) && reset(later, row) != 0;
  }
  /// Whether step t of a row begins at `start`, if its first step does not find an initial state.
  bool starts(std::int64_t t, std::int64_t row, bool has_initial) const {
    if (cut(t, row)) return true;
    return t == first_step(row) && (!has_initial || (carried.present() && carried(row) == 0));
  }

  /// What precedes step t of a row in a sequence [T, B, n] with the initial value [B, n].
  template <class T>
  const T* before(const View<const T, 3>& sequence, const View<const T, 2>& initial, std::int64_t t,
                  std::int64_t row, const T* start) const {
    const std::int64_t n = sequence.extent[2];
    if (starts(t, row, initial.present())) return start;
    if (t == first_step(row)) return initial.data + row * n;
    return sequence.data + (step_before(t) * batch + row) * n;
  }

  /// The rows of [first, last) that have step t, in `list`: how many.
  std::int64_t active(std::int64_t t, std::int64_t first, std::int64_t last,
                      std::int64_t* list) const {
    std::int64_t count = 0;
    for (std::int64_t row = first; row < last; ++row) {
      if (has(t, row)) list[count++] = row;
    }
    return count;
  }

  /// Step t of the `count` rows list[0 …] of a slice that begins at `first`, in a sequence
  /// [T, B, n]: where they are, or packed in `room` if the slice has other rows too.
  template <class T>
  const T* packed_step(const T* sequence, std::int64_t n, std::int64_t t, std::int64_t first,
                       std::int64_t count, const std::int64_t* list, T* room) const {
    if (!rows.present()) return sequence + (t * batch + first) * n;
    for (std::int64_t i = 0; i < count; ++i) {
      std::copy_n(sequence + (t * batch + list[i]) * n, n, room + i * n);
    }
    return room;
  }
};

template <class Acc>
RowOptions<Acc> row_options(const RecurrentOptions& given) {
  constexpr Acc kUnbounded = std::numeric_limits<Acc>::infinity();
  RowOptions<Acc> options{
      .cell_limit = given.cell_clip > 0 ? given.cell_clip : kUnbounded,
      .gradient_limit = given.gradient_clip > 0 ? given.gradient_clip : kUnbounded};
  if (!given.training) {
    options.zoneout_h = given.zoneout_h, options.zoneout_c = given.zoneout_c;
  } else if (given.recurrent_dropout > 0) {
    options.candidate_scale = dropout_scale(given.recurrent_dropout);
  }
  return options;
}

/// The recurrent weights, packed for the products of a step: one matrix for each phase, or for each
/// gate and head.
template <class T>
struct StepWeights {
  using Acc = Accumulator<T>;
  const SequenceShape& shape;
  std::vector<PackedMatrix<T>> matrices{};

  static PackedShape packed_shape(const SequenceShape& s, const BatchSlices& slices, int phase,
                                  bool transpose) {
    const std::int64_t in = s.heads > 1 ? s.width / s.heads : s.operand_width(phase);
    const std::int64_t out = s.heads > 1 ? in : s.columns_of(phase);
    PackedShape packed{
        .k = transpose ? in : out, .n = transpose ? out : in, .rows = slices.most_rows()};
    if (s.heads > 1) {
      packed.a_stride = transpose ? s.output : s.columns();
      packed.c_stride = transpose ? s.columns() : s.output;
    }
    return packed;
  }
  static std::int64_t bytes(const SequenceShape& s, const BatchSlices& slices, bool transpose) {
    std::int64_t sum = 0;
    const std::int64_t each = s.heads > 1 ? s.cell.gates * s.heads : 1;
    for (int p = 0; p < s.cell.phases; ++p) {
      sum += each * aligned(PackedMatrix<T>::bytes(packed_shape(s, slices, p, transpose)));
    }
    return sum;
  }
  /// `transpose` for the forward pass, whose products are operand·Wᵀ.
  void pack(const View<const T, 2>& weight, const BatchSlices& slices, bool transpose,
            std::byte* storage) {
    for (int p = 0; p < shape.cell.phases; ++p) {
      const PackedShape packed = packed_shape(shape, slices, p, transpose);
      const std::int64_t count = shape.heads > 1 ? shape.cell.gates * shape.heads : 1;
      const T* from = weight.data + shape.cell.gates_begin(p) * shape.width * weight.extent[1];
      for (std::int64_t i = 0; i < count; ++i, from += packed.k * packed.n) {
        matrices.emplace_back(packed, from, transpose, storage);
        storage += aligned(PackedMatrix<T>::bytes(packed));
      }
    }
  }
  bool present() const { return !matrices.empty(); }

  /// u [rows, the phase's gates · H] = operand [rows, P or H] · Wᵀ.
  void forward(int phase, std::int64_t rows, const T* operand, Acc* u) const {
    if (shape.heads == 1) return matrices[at(phase)].multiply(rows, operand, u, false);
    const std::int64_t each = shape.width / shape.heads;
    for (std::int64_t i = 0; i < shape.cell.gates * shape.heads; ++i) {
      matrices[at(i)].multiply(rows, operand + i % shape.heads * each, u + i * each, false);
    }
  }
  /// d_operand = δu · W.
  void backward(int phase, std::int64_t rows, const T* d_u, Acc* d_operand) const {
    if (shape.heads == 1) return matrices[at(phase)].multiply(rows, d_u, d_operand, false);
    const std::int64_t each = shape.width / shape.heads;
    for (std::int64_t i = 0; i < shape.cell.gates * shape.heads; ++i) {
      matrices[at(i)].multiply(rows, d_u + i * each, d_operand + i % shape.heads * each,
                               i >= shape.heads);
    }
  }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
  static std::int64_t aligned(std::size_t bytes) {
    return static_cast<std::int64_t>((bytes + 63) / 64 * 64);
  }
};

/// The steps that rows with ranges have, one after the other: what lies at place (t, row) of a
/// padded tensor is row index[t·B + row] of a packed one.
struct PackedSteps {
  std::int64_t *place, *index;  // [T·B] each, of which `count` and all are used
  std::int64_t count = 0;

  PackedSteps(const SequenceShape& s, ScratchCutter& cut)
      : place(cut.take<std::int64_t>(s.rows.present() ? s.steps * s.batch : 0)),
        index(cut.take<std::int64_t>(s.rows.present() ? s.steps * s.batch : 0)) {}
  void find(const SequenceShape& s) {
    for (std::int64_t n = 0; n < s.steps * s.batch; ++n) {
      if (!s.has(n / s.batch, n % s.batch)) continue;
      index[n] = count;
      place[count++] = n;
    }
  }
  /// Row i of `to` is row place[i] of `from`, whose rows are `stride` apart.
  template <class T>
  const T* gather(const T* from, std::int64_t stride, std::int64_t columns, T* to) const {
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < count; ++i) {
      std::copy_n(from + place[i] * stride, columns, to + i * columns);
    }
    return to;
  }
};

}  // namespace carousel
