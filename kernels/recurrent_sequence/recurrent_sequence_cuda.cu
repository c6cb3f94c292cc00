#include <algorithm>
#include <type_traits>

#include "kernels/common/cuda/gemm.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/scratch.h"
#include "kernels/recurrent_sequence/cells/table.h"
#include "kernels/recurrent_sequence/recurrent_sequence.h"
#include "kernels/recurrent_sequence/recurrent_sequence_kernels.cuh"
#include "kernels/reduce/reduce.h"

namespace carousel {
namespace {

template <class T>
struct KernelsOf {
  template <class Cell>
  struct Code {
    static inline const CellKernels<T> value = cell_kernels_of<Cell, T>();
  };
};

/// A product of the op's storage type.
template <class T>
Gemm product(const auto& op) {
  if constexpr (std::is_same_v<T, bf16>) return {.type = GemmType::bf16};
  return {.type = op.tf32 ? GemmType::tf32 : GemmType::f32};
}

std::int64_t most_gates(const CellInfo& cell) {
  int most = 0;
  for (int p = 0; p < cell.phases; ++p) most = std::max(most, cell.gates_of(p));
  return most;
}

template <class T>
ForwardParts<T> lay_out(ScratchCutter& cut, const RecurrentSequenceForward<T>& op) {
  const std::int64_t state = op.h.extent[1] * op.h.extent[2];
  return {.recurrent = cut.take<float>(state * most_gates(*op.cell)),
          .h = cut.take<T>(op.rows.present() ? state : 0)};
}

template <class T>
struct BackwardScratch {
  BackwardParts<T> parts{};
  View<float, 1> sums{}, sum_scratch{};
};

template <class T>
BackwardScratch<T> lay_out(ScratchCutter& cut, const RecurrentSequenceBackward<T>& op) {
  const auto [steps, batch, width] = op.h.extent;
  const CellInfo& cell = *op.cell;
  const std::int64_t state = batch * width;
  const bool keeps_h = (op.reset.present() || op.rows.present()) && op.d_weight_hh.present();
  BackwardScratch<T> s;
  s.parts.adds_to_d_h = cell.reads_h || op.rows.present() || !op.weight_hh.present();
  s.parts.d_h = cut.take<float>(state);
  for (int k = 1; k < cell.states; ++k) s.parts.d_state[k - 1] = cut.take<float>(state);
  const bool keeps_d_recurrent = cell.phases > 1 || cell.split > 0;
  s.parts.d_recurrent = cut.take<T>(keeps_d_recurrent ? state * most_gates(cell) : 0);
  s.parts.d_operand = cut.take<float>(cell.phases > 1 && op.weight_hh.present() ? state : 0);
  s.parts.d_parameter = cut.take<float>(state * cell.parameters);
  s.parts.h_before = cut.take<T>(keeps_h ? steps * state : 0);
  s.parts.x = cut.take<T>(op.rows.present() && op.d_weight_ih.present() ? op.x.size() : 0);
  const std::int64_t columns = cell.gates * width, all = columns + cell.split * width;
  const std::int64_t scratch = std::max({column_sum_scratch(steps * batch, columns),
                                         column_sum_scratch(steps * batch, width),
                                         column_sum_scratch(batch, cell.parameters * width)});
  s.sums = {cut.take<float>(all), {all}};
  s.sum_scratch = {cut.take<float>(scratch), {scratch}};
  return s;
}

/// The products over all steps, once δa is known everywhere.
template <class T>
void multiply_inputs(const Cuda& device, const RecurrentSequenceBackward<T>& op,
                     const BackwardParts<T>& parts) {
  const std::int64_t rows = op.h.extent[0] * op.h.extent[1], input = op.x.extent[2];
  const std::int64_t columns = op.gates.extent[2];
  if (op.d_x.present()) {
    Gemm d_x = product<T>(op);
    d_x.accumulate = op.d_x.accumulate;
    d_x.m = rows, d_x.n = input, d_x.k = columns;
    d_x.a = op.gates.data, d_x.b = op.weight_ih.data, d_x.c = op.d_x.view.data;
    gemm(device, d_x);
  }
  if (!op.d_weight_ih.present()) return;
  if (parts.x != nullptr) {
    launch(device, grid_of_places<T>(rows, input), recurrent_sequence_unpadded_kernel<T>, op,
           parts.x);
  }
  Gemm sum = product<T>(op);
  sum.transpose_a = true, sum.float_output = true;
  sum.accumulate = op.d_weight_ih.accumulate;
  sum.m = columns, sum.n = input, sum.k = rows;
  sum.a = op.gates.data, sum.b = parts.x != nullptr ? parts.x : op.x.data;
  sum.c = op.d_weight_ih.view.data;
  gemm(device, sum);
}

/// Σ_t δu[t]·operandᵀ for the gates of a phase: those that are not split from `gates` at once, each
/// of the others from where its δu is.
template <class T>
void multiply_hidden(const Cuda& device, const RecurrentSequenceBackward<T>& op,
                     const BackwardParts<T>& parts, int phase) {
  const auto [steps, batch, width] = op.h.extent;
  const CellInfo& cell = *op.cell;
  const std::int64_t rows = steps * batch, step_rows = batch;
  const auto saved = [&](int which) { return op.saved.data + which * rows * op.h.extent[2]; };
  const auto add = [&](const T* d, std::int64_t stride, int gate, int count) {
    const std::int64_t units = op.h.extent[2];
    Gemm sum = product<T>(op);
    sum.transpose_a = true, sum.float_output = true;
    sum.accumulate = op.d_weight_hh.accumulate;
    sum.m = count * units, sum.n = units, sum.k = rows;
    sum.a = d, sum.a_stride = stride, sum.b = parts.h_before;
    sum.c = op.d_weight_hh.view.data + gate * units * units;
    if (phase > 0) sum.b = saved(cell.split + phase - 1);
    if (phase > 0 || parts.h_before != nullptr) return gemm(device, sum);
    // ĥ is h, one step later: no copy is needed to pair δu[1 …] with h[0 …].
    sum.k = std::max<std::int64_t>(rows - step_rows, 0);
    sum.a = d + (rows > 0 ? step_rows * stride : 0), sum.b = op.h.data;
    gemm(device, sum);
    if (op.h0.present() && rows > 0) {
      sum.accumulate = true;
      sum.k = step_rows, sum.a = d, sum.b = op.h0.data;
      gemm(device, sum);
    }
  };
  const int first = cell.gates_begin(phase), end = cell.gates_begin(phase + 1);
  const int joint = std::min(end, cell.first_split()) - first;
  if (joint > 0) add(op.gates.data + first * width, op.gates.extent[2], first, joint);
  for (int k = std::max(first, cell.first_split()); k < end; ++k) {
    add(saved(k - cell.first_split()), width, k, 1);
  }
}

template <class T>
void sum_biases(const Cuda& device, const RecurrentSequenceBackward<T>& op,
                const BackwardScratch<T>& s) {
  if (!op.d_bias_ih.present() && !op.d_bias_hh.present()) return;
  const auto [steps, batch, width] = op.h.extent;
  const CellInfo& cell = *op.cell;
  const std::int64_t rows = steps * batch, columns = cell.gates * width;
  const auto add = [&](const T* values, std::int64_t count, float* to) {
    run(device,
        ColumnSum<T>{
            .x = {values, {rows, count}}, .sum = {{to, {count}}}, .scratch = s.sum_scratch});
  };
  add(op.gates.data, columns, s.sums.data);
  for (int k = 0; k < cell.split; ++k) {
    add(op.saved.data + k * rows * width, width, s.sums.data + columns + k * width);
  }
  const auto write = [&](const Gradient<float, 1>& to, std::int64_t joint, std::int64_t split) {
    if (!to.present()) return;
    launch(device, {.blocks = blocks_for(columns, kCellThreads), .threads = kCellThreads},
           recurrent_sequence_bias_kernel<T>, to, View<const float, 1>(s.sums), joint, split);
  };
  write(op.d_bias_ih, columns, 0);
  write(op.d_bias_hh, cell.first_split() * width, cell.split * width);
}

template <class T>
void sum_parameters(const Cuda& device, const RecurrentSequenceBackward<T>& op,
                    const BackwardScratch<T>& s) {
  if (!op.d_parameter.present()) return;
  const std::int64_t batch = op.h.extent[1], count = op.d_parameter.view.size();
  run(device,
      ColumnSum<float>{.x = {s.parts.d_parameter, {batch, count}},
                       .sum = {{op.d_parameter.view.data, {count}}, op.d_parameter.accumulate},
                       .scratch = s.sum_scratch});
}

template <class T>
void write_last_states(const Cuda& device, const RecurrentSequenceForward<T>& op) {
  const std::int64_t batch = op.h.extent[1], width = op.h.extent[2];
  if (op.h_last.present()) {
    launch(device, grid_of_places<T>(batch, width), recurrent_sequence_last_state_kernel<T, T>, op,
           View<const T, 3>(op.h), op.h0, op.h_last.data);
  }
  for (std::size_t s = 0; s < op.state.size(); ++s) {
    if (!op.state_last[s].present()) continue;
    launch(device, grid_of_places<float>(batch, width),
           recurrent_sequence_last_state_kernel<T, float>, op, View<const float, 3>(op.state[s]),
           op.state0[s], op.state_last[s].data);
  }
}

}  // namespace

template <class T>
void run_cell(const Cuda& device, const RecurrentSequenceForward<T>& op,
              const CellKernels<T>& kernels) {
  ScratchCutter cut(device, op.scratch);
  const ForwardParts<T> parts = lay_out(cut, op);
  cut.expect_enough("recurrent_sequence: scratch bytes");
  const auto [steps, batch, width] = op.h.extent;
  const CellInfo& cell = *op.cell;
  note_row_width<T>("H", width);

  Gemm input = product<T>(op);
  input.transpose_b = true;
  input.m = steps * batch, input.n = cell.gates * width, input.k = op.x.extent[2];
  input.a = op.x.data, input.b = op.weight_ih.data, input.c = op.gates.data;
  gemm(device, input);

  const Grid grid = grid_of_places<T>(batch, width);
  if (parts.h != nullptr) {
    launch(device, grid, recurrent_sequence_last_state_kernel<T, T>, op, View<const T, 3>{}, op.h0,
           parts.h);
  }
  Gemm step = product<T>(op);
  step.transpose_b = true, step.float_output = true;
  step.m = batch, step.k = width, step.c = parts.recurrent;
  for (std::int64_t t = 0; t < steps; ++t) {
    for (int phase = 0; phase < cell.phases; ++phase) {
      const T* by = t == 0 ? op.h0.data : op.h.data + (t - 1) * batch * width;
      if (parts.h != nullptr) by = parts.h;
      if (phase > 0) {
        by = op.saved.data + ((cell.split + phase - 1) * steps + t) * batch * width;
      }
      const bool multiplies = op.weight_hh.present() && by != nullptr;
      step.n = cell.gates_of(phase) * width, step.a = by;
      step.b = op.weight_hh.data + cell.gates_begin(phase) * width * width;
      if (multiplies) gemm(device, step);
      launch(device, grid, kernels.forward[phase], op,
             ForwardParts<T>{.recurrent = multiplies ? parts.recurrent : nullptr, .h = parts.h}, t);
    }
  }
  write_last_states(device, op);
}

template <class T>
void run_cell(const Cuda& device, const RecurrentSequenceBackward<T>& op,
              const CellKernels<T>& kernels) {
  ScratchCutter cut(device, op.scratch);
  const BackwardScratch<T> scratch = lay_out(cut, op);
  cut.expect_enough("recurrent_sequence: scratch bytes");
  const BackwardParts<T>& parts = scratch.parts;
  const auto [steps, batch, width] = op.h.extent;
  const CellInfo& cell = *op.cell;
  const Grid grid = grid_of_places<T>(batch, width);
  note_row_width<T>("H", width);
  if (cell.parameters > 0) {
    launch(device, grid_of_places<float>(batch * cell.parameters, width),
           recurrent_sequence_zero_kernel<float>, parts.d_parameter, batch * cell.parameters,
           width);
  }

  Gemm step = product<T>(op);
  step.float_output = true;
  step.m = batch, step.n = width;
  for (std::int64_t t = steps; t-- > 0;) {
    for (int phase = cell.phases; phase-- > 0;) {
      launch(device, grid, kernels.backward[phase], op, parts, t);
      if (!op.weight_hh.present() || (phase == 0 && t == 0 && !op.d_h0.present())) continue;
      step.k = cell.gates_of(phase) * width;
      step.a = parts.d_recurrent != nullptr ? parts.d_recurrent
                                            : op.gates.data + t * batch * cell.gates * width;
      step.b = op.weight_hh.data + cell.gates_begin(phase) * width * width;
      step.c = phase > 0 ? parts.d_operand : parts.d_h;
      step.accumulate = phase == 0 && parts.adds_to_d_h;
      gemm(device, step);
    }
  }
  const auto& d = op.d_state0;
  if (op.d_h0.present() || std::any_of(d.begin(), d.end(), [](auto& g) { return g.present(); })) {
    launch(device, grid, recurrent_sequence_initial_state_kernel<T>, op, parts);
  }
  multiply_inputs(device, op, parts);
  for (int phase = 0; op.d_weight_hh.present() && phase < cell.phases; ++phase) {
    multiply_hidden(device, op, parts, phase);
  }
  sum_biases(device, op, scratch);
  sum_parameters(device, op, scratch);
}

template <class T>
void RecurrentSequenceForward<T>::run(const Cuda& device) const {
  run_cell(device, *this, code_of<KernelsOf<T>::template Code>(cell));
}

template <class T>
void RecurrentSequenceBackward<T>::run(const Cuda& device) const {
  run_cell(device, *this, code_of<KernelsOf<T>::template Code>(cell));
}

template <class T>
std::size_t RecurrentSequenceForward<T>::scratch_bytes(const Cuda&) const {
  ScratchCutter cut;
  lay_out(cut, *this);
  return cut.bytes();
}

template <class T>
std::size_t RecurrentSequenceBackward<T>::scratch_bytes(const Cuda&) const {
  ScratchCutter cut;
  lay_out(cut, *this);
  return cut.bytes();
}

template void run_cell(const Cuda&, const RecurrentSequenceForward<float>&,
                       const CellKernels<float>&);
template void run_cell(const Cuda&, const RecurrentSequenceForward<bf16>&,
                       const CellKernels<bf16>&);
template void run_cell(const Cuda&, const RecurrentSequenceBackward<float>&,
                       const CellKernels<float>&);
template void run_cell(const Cuda&, const RecurrentSequenceBackward<bf16>&,
                       const CellKernels<bf16>&);
template void RecurrentSequenceForward<float>::run(const Cuda&) const;
template void RecurrentSequenceForward<bf16>::run(const Cuda&) const;
template void RecurrentSequenceBackward<float>::run(const Cuda&) const;
template void RecurrentSequenceBackward<bf16>::run(const Cuda&) const;
template std::size_t RecurrentSequenceForward<float>::scratch_bytes(const Cuda&) const;
template std::size_t RecurrentSequenceForward<bf16>::scratch_bytes(const Cuda&) const;
template std::size_t RecurrentSequenceBackward<float>::scratch_bytes(const Cuda&) const;
template std::size_t RecurrentSequenceBackward<bf16>::scratch_bytes(const Cuda&) const;

}  // namespace carousel
