#include "kernels/recurrent_sequence/recurrent_sequence.h"

#include <string>

#include "kernels/common/check.h"
#include "kernels/recurrent_sequence/cells/table.h"

namespace carousel {
namespace {

struct Sizes {
  std::int64_t steps, batch, input, width, gates;
};

template <class Op>
Sizes sizes(const Op& op) {
  expect_present("recurrent_sequence: cell", op.cell != nullptr);
  expect_present("recurrent_sequence: x", op.x.present());
  expect_present("recurrent_sequence: weight_ih", op.weight_ih.present());
  expect_present("recurrent_sequence: h", op.h.present());
  expect_present("recurrent_sequence: gates", op.gates.present());
  const auto [steps, batch, input] = op.x.extent;
  const std::int64_t width = op.h.extent[2];
  return {steps, batch, input, width, op.cell->gates * width};
}

template <class T, int R>
void expect_shape(const char* name, const View<T, R>& view,
                  const decltype(View<T, R>::extent)& extents) {
  if (!view.present()) return;
  const std::string what = std::string("recurrent_sequence: an extent of ") + name;
  for (std::size_t i = 0; i < extents.size(); ++i) {
    expect_extent(what.c_str(), view.extent[i], extents[i]);
  }
}

/// Views of the cell's float states, and none beyond them; each is there if `needed`.
template <class T, int R>
void expect_states(const char* name, const StateViews<T, R>& views, CellKind cell,
                   const decltype(View<T, R>::extent)& extents, bool needed = false) {
  for (int k = 0; k < kMostStates - 1; ++k) {
    const View<T, R>& view = views[static_cast<std::size_t>(k)];
    const std::string what = std::string("recurrent_sequence: ") + name;
    const bool exists = k + 1 < cell->states;
    if (needed && exists) expect_present(what.c_str(), view.present());
    if (!exists && view.present()) {
      throw ShapeError(what + " " + std::to_string(k) + " is given, which " +
                       std::string(cell->name) + " has not");
    }
    expect_shape(name, view, extents);
  }
}

/// What both passes have.
template <class Op>
void check_common(const Op& op, const Sizes& s) {
  const CellInfo& cell = *op.cell;
  expect_shape("weight_hh", op.weight_hh, {s.gates, s.width});
  expect_shape("weight_ih", op.weight_ih, {s.gates, s.input});
  expect_shape("h0", op.h0, {s.batch, s.width});
  expect_states("state0", op.state0, op.cell, {s.batch, s.width});
  expect_shape("reset", op.reset, {s.steps, s.batch});
  expect_shape("rows.begin", op.rows.begin, {s.batch});
  expect_shape("rows.end", op.rows.end, {s.batch});
  expect_shape("h", op.h, {s.steps, s.batch, s.width});
  expect_states("state", op.state, op.cell, {s.steps, s.batch, s.width}, true);
  expect_shape("gates", op.gates, {s.steps, s.batch, s.gates});
  if (cell.parameters > 0) {
    expect_present("recurrent_sequence: parameter", op.parameter.present());
    expect_shape("parameter", op.parameter, {cell.parameters, s.width});
  }
  if (cell.saved() > 0) {
    expect_present("recurrent_sequence: saved", op.saved.present());
    expect_shape("saved", op.saved, {cell.saved(), s.steps, s.batch, s.width});
  }
}

}  // namespace

std::span<const CellKind> cell_kinds() {
  static constexpr auto kinds = []<class... Cell>(std::type_identity<std::tuple<Cell...>>) {
    return std::array<CellKind, sizeof...(Cell)>{&Cell::kInfo...};
  }(std::type_identity<CellTable>{});
  return kinds;
}

CellKind cell_kind(std::string_view name) {
  std::string known;
  for (const CellKind cell : cell_kinds()) {
    if (cell->name == name) return cell;
    known += (known.empty() ? "" : ", ") + std::string(cell->name);
  }
  throw ConfigError("the cell is '" + std::string(name) + "', expected one of " + known);
}

template <class T>
void RecurrentSequenceForward<T>::check() const {
  const Sizes s = sizes(*this);
  check_common(*this, s);
  if (bias_ih.present() || bias_hh.present()) {
    expect_present("recurrent_sequence: bias_ih, given bias_hh,", bias_ih.present());
    expect_present("recurrent_sequence: bias_hh, given bias_ih,", bias_hh.present());
  }
  expect_shape("bias_ih", bias_ih, {s.gates});
  expect_shape("bias_hh", bias_hh, {s.gates});
  expect_shape("h_last", h_last, {s.batch, s.width});
  expect_states("state_last", state_last, cell, {s.batch, s.width});
}

template <class T>
void RecurrentSequenceBackward<T>::check() const {
  const Sizes s = sizes(*this);
  check_common(*this, s);
  if (d_weight_hh.present()) {
    expect_present("recurrent_sequence: weight_hh, given d_weight_hh,", weight_hh.present());
  }
  expect_shape("d_h", d_h, {s.steps, s.batch, s.width});
  expect_shape("d_h_last", d_h_last, {s.batch, s.width});
  expect_states("d_state_last", d_state_last, cell, {s.batch, s.width});
  expect_shape("d_x", d_x.view, {s.steps, s.batch, s.input});
  expect_shape("d_weight_ih", d_weight_ih.view, {s.gates, s.input});
  expect_shape("d_weight_hh", d_weight_hh.view, {s.gates, s.width});
  expect_shape("d_bias_ih", d_bias_ih.view, {s.gates});
  expect_shape("d_bias_hh", d_bias_hh.view, {s.gates});
  expect_shape("d_parameter", d_parameter.view, {cell->parameters, s.width});
  expect_shape("d_h0", d_h0.view, {s.batch, s.width});
  StateViews<Accumulator<T>, 2> d_states;
  for (std::size_t k = 0; k < d_states.size(); ++k) d_states[k] = d_state0[k].view;
  expect_states("d_state0", d_states, cell, {s.batch, s.width});
}

template <class T>
int RecurrentSequenceForward<T>::saved_count() const {
  return cell->saved() + (weight_hr.present() ? 1 : 0);
}
template <class T>
int RecurrentSequenceBackward<T>::saved_count() const {
  return cell->saved() + (weight_hr.present() ? 1 : 0);
}
template <class T>
int RecurrentSequenceForward<T>::normalizations() const {
  return cell->normalized_phases() + (gain.present() ? 2 : 0);
}
template <class T>
int RecurrentSequenceBackward<T>::normalizations() const {
  return cell->normalized_phases() + (gain.present() ? 2 : 0);
}

template struct RecurrentSequenceForward<float>;
template struct RecurrentSequenceForward<bf16>;
template struct RecurrentSequenceForward<double>;
template struct RecurrentSequenceBackward<float>;
template struct RecurrentSequenceBackward<bf16>;
template struct RecurrentSequenceBackward<double>;

}  // namespace carousel
