#pragma once

#include <array>
#include <span>
#include <string_view>

namespace carousel {

inline constexpr int kMostGates = 4, kMostStates = 4, kMostPhases = 3, kMostParameters = 4;

/// What the time loop and its callers must know about a recurrent cell.
struct CellInfo {
  std::string_view name;
  /// Of the torch.nn module that names its weights, "rnn" in "rnn.weight_ih_l0", and whose recording
  /// in tests/golden/ judges it. Empty if PyTorch does not have the cell: its own name names them.
  std::string_view module{};
  /// Of a variant of another cell: that cell's name, and the option of a model that chooses it.
  std::string_view variant_of{}, variant{};
  int gates = 1;  ///< blocks of H columns of W_ih·x, in the order of gate_names
  std::array<std::string_view, kMostGates> gate_names{};  ///< "f", else "z", keeps the old state
  int states = 1;  ///< the first is h, stored as T; the others are float
  std::array<std::string_view, kMostStates> state_names{"hidden state"};

  /// The last `split` gates take the input's part and the recurrent part of their pre-activation
  /// apart, so that the two have different gradients. Both are kept; other gates keep one.
  int split = 0;
  bool reads_h = false;    ///< h of the step before enters the pointwise part, not only the product
  bool multiplies = true;  ///< false: it has no recurrent product, so neither W_hh nor b_hh
  bool candidate = false;  ///< it calls Unit::kept(), which recurrent dropout needs
  bool gates_memory =
      false;  ///< state 1 is a cell state c = clipped(…), which zoneout_c and cell_clip need
  int parameters = 0;  ///< vectors of H parameters, one number per unit each
  std::array<std::string_view, kMostParameters> parameter_names{};
  bool normalizes =
      false;  ///< parameters are gain and bias of a layer normalization, 1 and 0 at first

  /// A step is `phases` pointwise parts. Before phase p, W_hh's rows of the gates
  /// [phase_begin[p], phase_begin[p + 1]) are multiplied by the phase's operand: h of the step
  /// before for phase 0, and for a later one what the phase before it has computed. A later phase
  /// without gates of its own gets that operand itself, normalized: its mean over the H units
  /// subtracted, divided by its standard deviation.
  int phases = 1;
  std::array<int, kMostPhases> phase_begin{};

  constexpr int gates_begin(int phase) const {
    return phase < phases ? phase_begin[static_cast<std::size_t>(phase)] : gates;
  }
  constexpr int gates_of(int phase) const { return gates_begin(phase + 1) - gates_begin(phase); }
  constexpr int first_split() const { return gates - split; }
  /// Whether phase p > 0 reads the operand normalized, instead of a product.
  constexpr bool is_normalized(int phase) const {
    return phase > 0 && phase < phases && gates_of(phase) == 0;
  }
  constexpr int normalized_phases() const {
    int count = 0;
    for (int p = 1; p < phases; ++p) count += is_normalized(p) ? 1 : 0;
    return count;
  }
  /// Tensors [T, B, H] that a forward pass keeps besides gates and states: the recurrent parts of
  /// the split gates, then the operands of the phases 1, 2, …
  constexpr int saved() const { return split + phases - 1; }
};
inline constexpr int kMostSaved = kMostGates + kMostPhases;

/// A cell as a field of an op. Every kind is one row of cells/table.h.
using CellKind = const CellInfo*;

/// All kinds, in the table's order.
std::span<const CellKind> cell_kinds();

/// The variant of a cell that an option chooses; null if it has none.
CellKind cell_variant(std::string_view name, std::string_view variant);

/// The kind of that name; ConfigError that lists the known ones if there is none.
CellKind cell_kind(std::string_view name);

template <int phase>
struct CellPhase {};

/// One unit of one row, in registers: all a cell's mathematics works on. Forward, `gate` holds
/// pre-activations (W_ih·x + b_ih of a split gate, the sum of both parts of another) and becomes
/// activations; backward, it holds activations and becomes the gradients of pre-activations.
/// `recurrent` is the same for the recurrent part W_hh·operand + b_hh of the split gates.
///
/// Where an option of the layer is on, `regularized`, a cell that calls kept(), clipped() and
/// clip_slope() as said below has dropout of its candidate and a bounded cell state; without it they
/// cost nothing. A cell whose backward() reads the cell state after[1] also has
/// `static void restore(U&)`, which computes it from activations and `before`: with zoneout, memory
/// holds another value.
template <class Cell, class R, bool regularized = false>
struct Unit {
  static constexpr int at_least_one(int count) { return count > 0 ? count : 1; }
  R gate[at_least_one(Cell::kInfo.gates)];
  R recurrent[at_least_one(Cell::kInfo.split)];
  R before[at_least_one(Cell::kInfo.states)];   ///< states as the step finds them: h, c, …
  R after[at_least_one(Cell::kInfo.states)];    ///< states as it leaves them
  R d_state[at_least_one(Cell::kInfo.states)];  ///< backward: in, of `after`; out, of `before`
  R operand;  ///< forward, out: of the next phase's product; backward, in: its gradient. A phase that
              ///< reads it normalized has it as input in both passes; backward, out: its gradient
  R parameter[at_least_one(Cell::kInfo.parameters)];
  R d_parameter[at_least_one(Cell::kInfo.parameters)];  ///< backward, out: this step's share
  R candidate_scale, cell_limit;

  /// A candidate for the memory, as it enters; backward, its gradient from the gradient of that.
  [[gnu::always_inline]] constexpr R kept(R candidate) const {
    if constexpr (regularized) return candidate * candidate_scale;
    return candidate;
  }
  /// A cell state within ±cell_limit. NaN stays NaN.
  [[gnu::always_inline]] constexpr R clipped(R c) const {
    if constexpr (regularized)
      return c > cell_limit ? cell_limit : c < -cell_limit ? -cell_limit : c;
    return c;
  }
  /// The derivative of clipped(), of which the value is given.
  [[gnu::always_inline]] constexpr R clip_slope(R c) const {
    if constexpr (regularized) return c >= cell_limit || c <= -cell_limit ? R{0} : R{1};
    return R{1};
  }
};

}  // namespace carousel
