#pragma once

#include "kernels/common/scratch.h"
#include "kernels/recurrent_sequence/cuda/backward_products.cuh"
#include "kernels/recurrent_sequence/cuda/cell_kernels.cuh"
#include "kernels/recurrent_sequence/cuda/normalize_kernels.cuh"

namespace carousel {

template <class T>
BackwardScratch<T> lay_out(ScratchCutter& cut, const RecurrentSequenceBackward<T>& op) {
  const auto [steps, batch, hidden] = op.h.extent;
  const CellInfo& cell = *op.cell;
  const std::int64_t width = width_of(op), units = batch * width, columns = op.gates.extent[2];
  const bool drops = drops_h(op.options), projects = op.weight_hr.present();
  const bool keeps_h = op.reset.present() || op.rows.present() || op.carried.present() ||
                       op.start[0].present() || drops;
  const bool links = cell.phases > 1 && (op.weight_hh.present() || cell.normalized_phases() > 0);
  BackwardScratch<T> s;
  BackwardParts<T>& parts = s.parts;
  parts.width = width;
  parts.options = cell_options(op.options);
  parts.adds_to_d_h = cell.reads_h || op.rows.present() || !op.weight_hh.present() ||
                      parts.options.zones_h || drops;
  parts.h = {.past = cut.take<float>(batch * hidden),
             .product = cut.take<float>(drops ? batch * hidden : 0),
             .factors = cut.take<float>(drops ? batch * hidden : 0),
             .start = cut.take<float>(op.d_start[0].present() ? batch * hidden : 0)};
  for (std::size_t k = 1; k < static_cast<std::size_t>(cell.states); ++k) {
    parts.state[k - 1] = {.past = cut.take<float>(units),
                          .start = cut.take<float>(op.d_start[k].present() ? units : 0)};
  }
  parts.zoned = {cut.take<float>(parts.options.zones_h ? units : 0),
                 cut.take<float>(parts.options.zones_c ? units : 0)};
  parts.d_h = cut.take<T>(projects ? op.h.size() : 0);
  parts.d_m = cut.take<float>(projects ? units : 0);
  const bool gathers = cell.split > 0 && !op.gain.present();
  parts.d_recurrent = cut.take<T>(gathers ? units * most_gates(cell) : 0);
  parts.d_operand = cut.take<float>(links ? units : 0);
  parts.d_parameter = cut.take<float>(units * cell.parameters);
  parts.d_gain = cut.take<float>(op.d_gain.present() ? batch * 2 * columns : 0);
  parts.h_before = cut.take<T>(keeps_h && op.d_weight_hh.present() ? op.h.size() : 0);
  parts.x = cut.take<T>(op.rows.present() && op.d_weight_ih.present() ? op.x.size() : 0);
  const std::int64_t all = columns + cell.split * width;
  const std::int64_t scratch = std::max(
      {column_sum_scratch(steps * batch, columns), column_sum_scratch(steps * batch, width),
       column_sum_scratch(batch, cell.parameters * width), column_sum_scratch(batch, hidden),
       column_sum_scratch(batch, width), column_sum_scratch(batch, 2 * columns)});
  s.sums = {cut.take<float>(all), {all}};
  s.sum_scratch = {cut.take<float>(scratch), {scratch}};
  return s;
}

/// δm of step t, from δh.
template <class T>
void project_back(const Cuda& device, const RecurrentSequenceBackward<T>& op,
                  const BackwardParts<T>& parts, std::int64_t t) {
  const std::int64_t batch = op.h.extent[1], hidden = op.h.extent[2];
  launch(device, grid_of_places<T>(batch, hidden), recurrent_sequence_output_gradient_kernel<T>, op,
         parts, t);
  Gemm d_m = product_of<T>(op);
  d_m.float_output = true;
  d_m.m = batch, d_m.n = parts.width, d_m.k = hidden;
  d_m.a = parts.d_h + t * batch * hidden, d_m.b = op.weight_hr.data, d_m.c = parts.d_m;
  gemm(device, d_m);
}

/// Clears the sums that the steps add to.
template <class T>
void clear_sums(const Cuda& device, const RecurrentSequenceBackward<T>& op,
                const BackwardParts<T>& parts) {
  const std::int64_t batch = op.h.extent[1];
  const auto clear = [&](float* sums, std::int64_t width) {
    if (sums == nullptr) return;
    launch(device, grid_of_places<float>(batch, width), recurrent_sequence_zero_kernel<float>, sums,
           batch, width);
  };
  clear(parts.d_parameter, op.cell->parameters * parts.width);
  clear(parts.d_gain, 2 * op.gates.extent[2]);
  clear(parts.h.start, op.h.extent[2]);
  for (const StateFlow& state : parts.state) clear(state.start, parts.width);
}

template <class T>
void run_cell(const Cuda& device, const RecurrentSequenceBackward<T>& op,
              const CellKernels<T>& kernels) {
  ScratchCutter cut(device, op.scratch);
  const BackwardScratch<T> scratch = lay_out(cut, op);
  cut.expect_enough("recurrent_sequence: scratch bytes");
  const BackwardParts<T>& parts = scratch.parts;
  const auto [steps, batch, hidden] = op.h.extent;
  const CellInfo& cell = *op.cell;
  const std::int64_t width = parts.width, columns = op.gates.extent[2], rows = steps * batch;
  const RecurrentProducts<T> products(device, op);
  note_row_width<T>("H", width);
  clear_sums(device, op, parts);
  draw_factors(device, op, parts.h.factors);
  for (std::int64_t i = 0; i < steps; ++i) {
    const std::int64_t t = op.reverse ? i : steps - 1 - i;
    if (op.weight_hr.present()) project_back(device, op, parts, t);
    for (int phase = cell.phases; phase-- > 0;) {
      const int first = cell.gates_begin(phase), own = cell.gates_of(phase);
      launch(device, grid_of_places<T>(batch, width), kernels.backward[phase], op, parts, t);
      if (cell.is_normalized(phase)) {
        launch(device, grid_of_rows(batch), recurrent_sequence_normalize_operand_backward_kernel<T>,
               batch, width, t, op.saved.data + (cell.split + phase - 1) * rows * width,
               op.deviation.data + normalization_of(op, phase) * rows, parts.d_operand);
      }
      if (phase == 0 && op.gain.present()) {
        launch(device, grid_of_rows(batch, 2), recurrent_sequence_normalize_backward_kernel<T>, op,
               cell.gates, cell.split, t, parts.d_gain);
      }
      const bool is_wanted = phase > 0 || i + 1 < steps || op.d_h0.present() || parts.h.start;
      if (!products.present() || own == 0 || !is_wanted) continue;
      const T* const d_all = op.gain.present() ? op.normal.data + rows * columns : op.gates.data;
      Rows<T> d{d_all + t * batch * columns + first * width, columns};
      if (parts.d_recurrent != nullptr) d = {parts.d_recurrent, own * width};
      float* const d_h = parts.h.product != nullptr ? parts.h.product : parts.h.past;
      products.backward(batch, first, own, d, phase > 0 ? parts.d_operand : d_h,
                        phase == 0 && parts.adds_to_d_h);
    }
  }
  AfterLoop<T>(device, op, scratch).run();
}

}  // namespace carousel
