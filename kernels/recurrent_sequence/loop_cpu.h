#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "kernels/common/cpu_product.h"
#include "kernels/common/cpu_rows.h"
#include "kernels/common/scratch.h"
#include "kernels/recurrent_sequence/cell_rows.h"
#include "kernels/recurrent_sequence/recurrent_sequence.h"

namespace carousel {

/// The time loop with a cell's row loops given, whether or not the cell is in the table.
template <class T>
void run_cell(const Cpu& device, const RecurrentSequenceForward<T>& op, const CellRows<T>& rows);
template <class T>
void run_cell(const Cpu& device, const RecurrentSequenceBackward<T>& op, const CellRows<T>& rows);

/// What both passes know of the sequence: its sizes, and which step of which row follows on what.
struct SequenceShape {
  const CellInfo& cell;
  std::int64_t steps, batch, width;
  View<const std::int32_t, 2> reset;
  RowRangeView rows;

  template <class Op>
  explicit SequenceShape(const Op& op)
      : cell(*op.cell),
        steps(op.h.extent[0]),
        batch(op.h.extent[1]),
        width(op.h.extent[2]),
        reset(op.reset),
        rows(op.rows) {}

  std::int64_t columns() const { return cell.gates * width; }
  std::int64_t columns_of(int phase) const { return cell.gates_of(phase) * width; }
  std::int64_t most_columns() const {
    std::int64_t most = 0;
    for (int p = 0; p < cell.phases; ++p) most = std::max(most, columns_of(p));
    return most;
  }

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
  bool is_first(std::int64_t t, std::int64_t row) const { return t == range(row).first; }
  /// Whether the state is forgotten between the steps t − 1 and t.
  bool resets(std::int64_t t, std::int64_t row) const {
    return reset.present() && t < steps && reset(t, row) != 0;
  }
  std::int64_t place(std::int64_t t, std::int64_t row) const { return (t * batch + row) * width; }

  /// What precedes step t of a row in a sequence [T, B, H] with the initial value [B, H]; `absent`
  /// where that is nothing.
  template <class T>
  const T* before(const View<const T, 3>& sequence, const View<const T, 2>& initial, std::int64_t t,
                  std::int64_t row, const T* absent) const {
    if (resets(t, row)) return absent;
    if (!is_first(t, row)) return sequence.data + place(t - 1, row);
    return initial.present() ? initial.data + row * width : absent;
  }
};

}  // namespace carousel
