#pragma once

#include "kernels/common/scratch.h"
#include "kernels/recurrent_sequence/cuda/cell_kernels.cuh"
#include "kernels/recurrent_sequence/cuda/normalize_kernels.cuh"
#include "kernels/recurrent_sequence/cuda/products.cuh"

namespace carousel {

template <class T>
ForwardParts<T> lay_out(ScratchCutter& cut, const RecurrentSequenceForward<T>& op) {
  const std::int64_t batch = op.h.extent[1], hidden = op.h.extent[2], width = width_of(op);
  const bool drops = drops_h(op.options);
  const bool keeps_operand = op.rows.present() || op.start[0].present() || drops;
  return {.width = width,
          .options = cell_options(op.options),
          .recurrent = cut.take<float>(batch * width * most_gates(*op.cell)),
          .operand = cut.take<T>(keeps_operand ? batch * hidden : 0),
          .link = cut.take<float>(op.cell->normalized_phases() > 0 ? batch * width : 0),
          .factors = cut.take<float>(drops ? batch * hidden : 0)};
}

template <class T>
void write_last_states(const Cuda& device, const RecurrentSequenceForward<T>& op) {
  const std::int64_t batch = op.h.extent[1];
  if (op.h_last.present()) {
    launch(device, grid_of_places<T>(batch, op.h.extent[2]),
           recurrent_sequence_last_state_kernel<T, T>, op, View<const T, 3>(op.h), op.h0,
           op.start[0], op.h_last.data);
  }
  for (std::size_t s = 0; s < op.state.size(); ++s) {
    if (!op.state_last[s].present()) continue;
    launch(device, grid_of_places<float>(batch, width_of(op)),
           recurrent_sequence_last_state_kernel<T, float>, op, View<const float, 3>(op.state[s]),
           op.state0[s], op.start[s + 1], op.state_last[s].data);
  }
}

/// Normalizes rows of the input's part (0) or the recurrent part (1), in place.
template <class T, class V>
void normalize_part(const Cuda& device, const RecurrentSequenceForward<T>& op, int part,
                    std::int64_t first, std::int64_t rows, V* values) {
  const std::int64_t all = op.h.extent[0] * op.h.extent[1], columns = op.gates.extent[2];
  launch(device, grid_of_rows(rows), recurrent_sequence_normalize_kernel<T, V>, op,
         Normalization<T, V>{.first = first,
                             .rows = rows,
                             .gates = op.cell->gates,
                             .width = width_of(op),
                             .values = values,
                             .gain = op.gain.data + part * columns,
                             .normal = op.normal.data + part * all * columns,
                             .deviation = op.deviation.data + part * all,
                             .of_h = part == 1});
}

/// Before the loop: the input's part of all steps, and what phase 0 of the first one multiplies.
template <class T>
void prepare(const Cuda& device, const RecurrentSequenceForward<T>& op,
             const ForwardParts<T>& parts) {
  const std::int64_t rows = op.h.extent[0] * op.h.extent[1];
  Gemm input = product_of<T>(op);
  input.transpose_b = true;
  input.m = rows, input.n = op.gates.extent[2], input.k = op.x.extent[2];
  input.a = op.x.data, input.b = op.weight_ih.data, input.c = op.gates.data;
  gemm(device, input);
  if (op.gain.present()) normalize_part(device, op, 0, 0, rows, op.gates.data);
  draw_factors(device, op, parts.factors);
  if (parts.operand == nullptr) return;
  launch(device, grid_of_places<T>(op.h.extent[1], op.h.extent[2]),
         recurrent_sequence_first_operand_kernel<T>, op, parts);
}

/// h[t] from m[t].
template <class T>
void project(const Cuda& device, const RecurrentSequenceForward<T>& op,
             const ForwardParts<T>& parts, std::int64_t t) {
  const auto [steps, batch, hidden] = op.h.extent;
  Gemm h = product_of<T>(op);
  h.transpose_b = true;
  h.m = batch, h.n = hidden, h.k = parts.width;
  h.a = op.saved.data + (op.cell->saved() * steps + t) * batch * parts.width;
  h.b = op.weight_hr.data, h.c = op.h.data + t * batch * hidden;
  gemm(device, h);
  if (parts.operand == nullptr && !parts.options.zones_h) return;
  launch(device, grid_of_places<T>(batch, hidden), recurrent_sequence_projected_kernel<T>, op,
         parts, t);
}

template <class T>
void run_cell(const Cuda& device, const RecurrentSequenceForward<T>& op,
              const CellKernels<T>& kernels) {
  ScratchCutter cut(device, op.scratch);
  const ForwardParts<T> parts = lay_out(cut, op);
  cut.expect_enough("recurrent_sequence: scratch bytes");
  const auto [steps, batch, hidden] = op.h.extent;
  const CellInfo& cell = *op.cell;
  const std::int64_t units = batch * parts.width;
  const RecurrentProducts<T> products(device, op);
  note_row_width<T>("H", parts.width);
  prepare(device, op, parts);
  for (std::int64_t i = 0; i < steps; ++i) {
    const std::int64_t t = op.reverse ? steps - 1 - i : i, before = op.reverse ? t + 1 : t - 1;
    for (int phase = 0; phase < cell.phases; ++phase) {
      T* const saved =
          phase > 0 ? op.saved.data + (cell.split + phase - 1) * steps * units : nullptr;
      const T* by = i == 0 ? op.h0.data : op.h.data + before * batch * hidden;
      if (parts.operand != nullptr) by = parts.operand;
      if (phase > 0) by = saved + t * units;
      const bool multiplies = products.present() && cell.gates_of(phase) > 0 && by != nullptr;
      ForwardParts<T> now = parts;
      if (!multiplies) now.recurrent = nullptr;
      if (multiplies) {
        products.forward(batch, cell.gates_begin(phase), cell.gates_of(phase), by, now.recurrent);
      }
      if (phase == 0 && op.gain.present()) {
        normalize_part(device, op, 1, t * batch, batch, now.recurrent);
      }
      if (cell.is_normalized(phase)) {
        float* const deviation = op.deviation.data + normalization_of(op, phase) * steps * batch;
        launch(device, grid_of_rows(batch), recurrent_sequence_normalize_kernel<T, float>, op,
               Normalization<T, float>{.first = t * batch,
                                       .rows = batch,
                                       .gates = 1,
                                       .width = parts.width,
                                       .values = parts.link,
                                       .gain = nullptr,
                                       .normal = saved,
                                       .deviation = deviation,
                                       .of_h = false});
      }
      launch(device, grid_of_places<T>(batch, parts.width), kernels.forward[phase], op, now, t);
    }
    if (op.weight_hr.present()) project(device, op, parts, t);
  }
  write_last_states(device, op);
}

}  // namespace carousel
