#include "kernels/recurrent_sequence/recurrent_sequence.h"

#include <string>

#include "kernels/common/check.h"
#include "kernels/recurrent_sequence/cells/table.h"

namespace carousel {
namespace {

struct Sizes {
  std::int64_t steps, batch, input, width, output, columns;
};

template <class Op>
Sizes sizes(const Op& op) {
  expect_present("recurrent_sequence: cell", op.cell != nullptr);
  expect_present("recurrent_sequence: x", op.x.present());
  expect_present("recurrent_sequence: weight_ih", op.weight_ih.present());
  expect_present("recurrent_sequence: h", op.h.present());
  expect_present("recurrent_sequence: gates", op.gates.present());
  const auto [steps, batch, input] = op.x.extent;
  const std::int64_t output = op.h.extent[2];
  const std::int64_t width = op.weight_hr.present() ? op.weight_hr.extent[1] : output;
  return {steps, batch, input, width, output, op.cell->gates * width};
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

[[noreturn]] void refuse(const CellInfo& cell, const char* what, const char* why) {
  throw ConfigError("recurrent_sequence: " + std::string(what) + " is not for the cell " +
                    std::string(cell.name) + ": " + why);
}

/// W_hh, and what depends on its shape.
template <class Op>
void check_product(const Op& op, const Sizes& s) {
  const CellInfo& cell = *op.cell;
  if (op.weight_hr.present()) {
    if (cell.reads_h) refuse(cell, "a projection", "its equations read h, which would be narrower");
    expect_shape("weight_hr", op.weight_hr, {s.output, s.width});
  }
  if (op.gain.present()) {
    if (!cell.multiplies || cell.gates_of(0) != cell.gates) {
      refuse(cell, "layer normalization", "it has not one recurrent product of all gates");
    }
    expect_shape("gain", op.gain, {2, s.columns});
  }
  if (!op.weight_hh.present()) return;
  if (!cell.multiplies) refuse(cell, "weight_hh", "it has no recurrent product");
  const std::int64_t each = op.weight_hh.extent[1];
  if (each == s.output) return expect_shape("weight_hh", op.weight_hh, {s.columns, s.output});
  if (each == 0 || s.output % each != 0 || op.weight_hr.present() || cell.phases > 1) {
    throw ShapeError("recurrent_sequence: weight_hh is [" + std::to_string(op.weight_hh.extent[0]) +
                     ", " + std::to_string(each) + "], expected [" + std::to_string(s.columns) +
                     ", " + std::to_string(s.output) +
                     "] or, without projection and of a cell of one phase, that width divided by "
                     "a number of heads");
  }
  expect_shape("weight_hh", op.weight_hh, {s.columns, each});
}

void expect_probability(const char* name, float p) {
  if (!(p >= 0 && p <= 1)) {
    throw ConfigError("recurrent_sequence: options." + std::string(name) + " is " +
                      std::to_string(p) + ", expected 0 to 1");
  }
}
void expect_bound(const char* name, float bound) {
  if (!(bound >= 0)) {
    throw ConfigError("recurrent_sequence: options." + std::string(name) + " is " +
                      std::to_string(bound) + ", expected at least 0 (0: no bound)");
  }
}

template <class Op>
void check_options(const Op& op, const Sizes& s) {
  const CellInfo& cell = *op.cell;
  const RecurrentOptions& options = op.options;
  expect_probability("zoneout_h", options.zoneout_h);
  expect_probability("zoneout_c", options.zoneout_c);
  expect_probability("recurrent_dropout", options.recurrent_dropout);
  expect_probability("variational", options.variational);
  expect_bound("cell_clip", options.cell_clip);
  expect_bound("gradient_clip", options.gradient_clip);
  if (options.zoneout_h > 0 && op.weight_hr.present()) {
    refuse(cell, "zoneout_h with a projection", "what is projected has no step before");
  }
  if (options.zoneout_c > 0 && !cell.gates_memory) {
    refuse(cell, "zoneout_c", "it has no gated cell state");
  }
  if (options.cell_clip > 0 && !cell.gates_memory) {
    refuse(cell, "cell_clip", "it has no gated cell state");
  }
  if (options.recurrent_dropout > 0 && !cell.candidate) {
    refuse(cell, "recurrent_dropout", "it has no candidate for a gated memory");
  }
  if (options.variational > 0 && !op.weight_hh.present()) {
    refuse(cell, "variational", "there is no recurrent product");
  }
  const bool draws_variational = options.training && options.variational > 0;
  if (options.draws() || draws_variational) {
    expect_present("recurrent_sequence: options.source.step", options.source.step.present());
  }
  if (options.draws()) {
    expect_present("recurrent_sequence: mask", op.mask.present());
    expect_shape("mask", op.mask, {s.steps, s.batch, s.width});
  }
}

/// What both passes have.
template <class Op>
void check_common(const Op& op, const Sizes& s) {
  const CellInfo& cell = *op.cell;
  check_product(op, s);
  check_options(op, s);
  expect_shape("weight_ih", op.weight_ih, {s.columns, s.input});
  for (std::size_t k = 0; k < op.start.size(); ++k) {
    if (static_cast<int>(k) >= cell.states && op.start[k].present()) {
      throw ShapeError("recurrent_sequence: start " + std::to_string(k) + " is given, which " +
                       std::string(cell.name) + " has not");
    }
    expect_shape("start", op.start[k], {k == 0 ? s.output : s.width});
  }
  expect_shape("h0", op.h0, {s.batch, s.output});
  expect_states("state0", op.state0, op.cell, {s.batch, s.width});
  expect_shape("carried", op.carried, {s.batch});
  expect_shape("reset", op.reset, {s.steps, s.batch});
  expect_shape("rows.begin", op.rows.begin, {s.batch});
  expect_shape("rows.end", op.rows.end, {s.batch});
  expect_shape("h", op.h, {s.steps, s.batch, s.output});
  expect_states("state", op.state, op.cell, {s.steps, s.batch, s.width}, true);
  expect_shape("gates", op.gates, {s.steps, s.batch, s.columns});
  if (cell.parameters > 0) {
    expect_present("recurrent_sequence: parameter", op.parameter.present());
    expect_shape("parameter", op.parameter, {cell.parameters, s.width});
  }
  if (op.saved_count() > 0) {
    expect_present("recurrent_sequence: saved", op.saved.present());
    expect_shape("saved", op.saved, {op.saved_count(), s.steps, s.batch, s.width});
  }
  if (op.gain.present()) {
    expect_present("recurrent_sequence: normal, given gain,", op.normal.present());
    expect_shape("normal", op.normal, {2, s.steps, s.batch, s.columns});
  }
  if (op.normalizations() > 0) {
    expect_present("recurrent_sequence: deviation", op.deviation.present());
    expect_shape("deviation", op.deviation, {op.normalizations(), s.steps, s.batch});
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

CellKind cell_variant(std::string_view name, std::string_view variant) {
  for (const CellKind cell : cell_kinds()) {
    if (cell->variant_of == name && cell->variant == variant) return cell;
  }
  return nullptr;
}

template <class T>
void RecurrentSequenceForward<T>::check() const {
  const Sizes s = sizes(*this);
  check_common(*this, s);
  if (!cell->multiplies && bias_hh.present()) refuse(*cell, "bias_hh", "it has bias_ih alone");
  if (cell->multiplies && (bias_ih.present() || bias_hh.present())) {
    expect_present("recurrent_sequence: bias_ih, given bias_hh,", bias_ih.present());
    expect_present("recurrent_sequence: bias_hh, given bias_ih,", bias_hh.present());
  }
  expect_shape("bias_ih", bias_ih, {s.columns});
  expect_shape("bias_hh", bias_hh, {s.columns});
  expect_shape("h_last", h_last, {s.batch, s.output});
  expect_states("state_last", state_last, cell, {s.batch, s.width});
}

template <class T>
void RecurrentSequenceBackward<T>::check() const {
  const Sizes s = sizes(*this);
  check_common(*this, s);
  if (d_weight_hh.present()) {
    expect_present("recurrent_sequence: weight_hh, given d_weight_hh,", weight_hh.present());
    expect_shape("d_weight_hh", d_weight_hh.view, {s.columns, weight_hh.extent[1]});
  }
  if (d_weight_hr.present()) {
    expect_present("recurrent_sequence: weight_hr, given d_weight_hr,", weight_hr.present());
  }
  if (d_gain.present()) {
    expect_present("recurrent_sequence: gain, given d_gain,", gain.present());
  }
  expect_shape("d_h", d_h, {s.steps, s.batch, s.output});
  expect_shape("d_h_last", d_h_last, {s.batch, s.output});
  expect_states("d_state_last", d_state_last, cell, {s.batch, s.width});
  expect_shape("d_x", d_x.view, {s.steps, s.batch, s.input});
  expect_shape("d_weight_ih", d_weight_ih.view, {s.columns, s.input});
  expect_shape("d_weight_hr", d_weight_hr.view, {s.output, s.width});
  expect_shape("d_bias_ih", d_bias_ih.view, {s.columns});
  expect_shape("d_bias_hh", d_bias_hh.view, {s.columns});
  expect_shape("d_gain", d_gain.view, {2, s.columns});
  expect_shape("d_parameter", d_parameter.view, {cell->parameters, s.width});
  for (std::size_t k = 0; k < d_start.size(); ++k) {
    if (d_start[k].present()) {
      expect_present("recurrent_sequence: start, given d_start,", start[k].present());
    }
    expect_shape("d_start", d_start[k].view, {k == 0 ? s.output : s.width});
  }
  expect_shape("d_h0", d_h0.view, {s.batch, s.output});
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
