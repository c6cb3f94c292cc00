#pragma once

#include <array>
#include <span>
#include <string_view>

namespace carousel {

inline constexpr int kMostGates = 4, kMostStates = 4, kMostPhases = 3;

/// What the time loop and its callers must know about a recurrent cell.
struct CellInfo {
  std::string_view name;
  /// Of the torch.nn module that names its weights, "rnn" in "rnn.weight_ih_l0", and whose recording
  /// in tests/golden/ judges it. Empty if PyTorch does not have the cell: its own name names them.
  std::string_view module{};
  int gates = 1;  ///< blocks of H columns of W_ih·x, in the order of gate_names
  std::array<std::string_view, kMostGates> gate_names{};
  int states = 1;  ///< the first is h, stored as T; the others are float
  std::array<std::string_view, kMostStates> state_names{"hidden state"};

  /// The last `split` gates take the input's part and the recurrent part of their pre-activation
  /// apart, so that the two have different gradients. Both are kept; other gates keep one.
  int split = 0;
  bool reads_h = false;  ///< h of the step before enters the pointwise part, not only the product
  int parameters = 0;    ///< vectors of H parameters, one number per unit each

  /// A step is `phases` pointwise parts. Before phase p, W_hh's rows of the gates
  /// [phase_begin[p], phase_begin[p + 1]) are multiplied by the phase's operand: h of the step
  /// before for phase 0, and for a later one what the phase before it has computed.
  int phases = 1;
  std::array<int, kMostPhases> phase_begin{};

  constexpr int gates_begin(int phase) const {
    return phase < phases ? phase_begin[static_cast<std::size_t>(phase)] : gates;
  }
  constexpr int gates_of(int phase) const { return gates_begin(phase + 1) - gates_begin(phase); }
  constexpr int first_split() const { return gates - split; }
  /// Tensors [T, B, H] that a forward pass keeps besides gates and states: the recurrent parts of
  /// the split gates, then the operands of the phases 1, 2, …
  constexpr int saved() const { return split + phases - 1; }
};
inline constexpr int kMostSaved = kMostGates + kMostPhases - 1;

/// A cell as a field of an op. Every kind is one row of cells/table.h.
using CellKind = const CellInfo*;

/// All kinds, in the table's order.
std::span<const CellKind> cell_kinds();

/// The kind of that name; ConfigError that lists the known ones if there is none.
CellKind cell_kind(std::string_view name);

template <int phase>
struct CellPhase {};

/// One unit of one row, in registers: all a cell's mathematics works on. Forward, `gate` holds
/// pre-activations (W_ih·x + b_ih of a split gate, the sum of both parts of another) and becomes
/// activations; backward, it holds activations and becomes the gradients of pre-activations.
/// `recurrent` is the same for the recurrent part W_hh·operand + b_hh of the split gates.
template <class Cell, class R>
struct Unit {
  static constexpr int at_least_one(int count) { return count > 0 ? count : 1; }
  R gate[at_least_one(Cell::kInfo.gates)];
  R recurrent[at_least_one(Cell::kInfo.split)];
  R before[at_least_one(Cell::kInfo.states)];   ///< states as the step finds them: h, c, …
  R after[at_least_one(Cell::kInfo.states)];    ///< states as it leaves them
  R d_state[at_least_one(Cell::kInfo.states)];  ///< backward: in, of `after`; out, of `before`
  R operand;  ///< forward, out: of the next phase's product; backward, in: its gradient
  R parameter[at_least_one(Cell::kInfo.parameters)];
  R d_parameter[at_least_one(Cell::kInfo.parameters)];  ///< backward, out: this step's share
};

}  // namespace carousel
