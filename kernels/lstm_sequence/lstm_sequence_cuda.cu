#include <type_traits>

#include "kernels/common/cuda/gemm.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/scratch.h"
#include "kernels/lstm_sequence/lstm_sequence.h"
#include "kernels/lstm_sequence/lstm_sequence_kernels.cuh"
#include "kernels/reduce/reduce.h"

namespace carousel {
namespace {

/// A product of the op's storage type.
template <class T>
Gemm product(const auto& op) {
  if constexpr (std::is_same_v<T, bf16>) return {.type = GemmType::bf16};
  return {.type = op.tf32 ? GemmType::tf32 : GemmType::f32};
}

template <class T>
float* lay_out_forward(ScratchCutter& cut, const LstmSequenceForward<T>& op) {
  return cut.take<float>(op.h.extent[1] * 4 * op.h.extent[2]);
}

template <class T>
struct BackwardScratch {
  BackwardParts<T> parts;
  View<float, 1> bias_sum, sum_scratch;
};

template <class T>
BackwardScratch<T> lay_out_backward(ScratchCutter& cut, const LstmSequenceBackward<T>& op) {
  const auto [steps, batch, width] = op.h.extent;
  const bool masks_h = op.reset.present() && op.d_weight_hh.present();
  BackwardScratch<T> s{};
  s.parts.d_h_recurrent = cut.take<float>(batch * width);
  s.parts.d_c = cut.take<float>(batch * width);
  if (masks_h) s.parts.h_before = cut.take<T>(steps * batch * width);
  const std::int64_t columns = 4 * width, sums = column_sum_scratch(steps * batch, columns);
  s.bias_sum = {cut.take<float>(columns), {columns}};
  s.sum_scratch = {cut.take<float>(sums), {sums}};
  return s;
}

/// The products over all steps, once δa is known everywhere.
template <class T>
void multiply_weights(const Cuda& device, const LstmSequenceBackward<T>& op, const T* h_before) {
  const auto [steps, batch, width] = op.h.extent;
  const std::int64_t rows = steps * batch, input = op.x.extent[2];
  if (op.d_x.present()) {
    Gemm d_x = product<T>(op);
    d_x.accumulate = op.accumulate_d_x;
    d_x.m = rows, d_x.n = input, d_x.k = 4 * width;
    d_x.a = op.gates.data, d_x.b = op.weight_ih.data, d_x.c = op.d_x.data;
    gemm(device, d_x);
  }
  Gemm sum = product<T>(op);
  sum.transpose_a = true, sum.float_output = true;
  sum.m = 4 * width, sum.k = rows, sum.a = op.gates.data;
  if (op.d_weight_ih.present()) {
    sum.accumulate = op.accumulate_d_weight_ih;
    sum.n = input, sum.b = op.x.data, sum.c = op.d_weight_ih.data;
    gemm(device, sum);
  }
  if (!op.d_weight_hh.present()) return;
  sum.accumulate = op.accumulate_d_weight_hh;
  sum.n = width, sum.c = op.d_weight_hh.data;
  if (h_before != nullptr) {
    sum.b = h_before;
    return gemm(device, sum);
  }
  // ĥ is h, one step later: no copy is needed to pair δa[1 …] with h[0 …].
  sum.k = steps > 0 ? rows - batch : 0;
  sum.a = op.gates.data + (steps > 0 ? batch * 4 * width : 0), sum.b = op.h.data;
  gemm(device, sum);
  if (op.h0.present() && steps > 0) {
    sum.accumulate = true;
    sum.k = batch, sum.a = op.gates.data, sum.b = op.h0.data;
    gemm(device, sum);
  }
}

}  // namespace

template <class T>
std::size_t scratch_bytes(const Cuda&, const LstmSequenceForward<T>& op) {
  ScratchCutter cut;
  lay_out_forward(cut, op);
  return cut.bytes();
}

template <class T>
std::size_t scratch_bytes(const Cuda&, const LstmSequenceBackward<T>& op) {
  ScratchCutter cut;
  lay_out_backward(cut, op);
  return cut.bytes();
}

template <class T>
void run(const Cuda& device, const LstmSequenceForward<T>& op) {
  ScratchCutter cut(device, op.scratch);
  float* const recurrent = lay_out_forward(cut, op);
  cut.expect_enough("lstm_sequence: scratch bytes");
  const auto [steps, batch, width] = op.h.extent;
  note_row_width<T>("H", width);

  Gemm input = product<T>(op);
  input.transpose_b = true;
  input.m = steps * batch, input.n = 4 * width, input.k = op.x.extent[2];
  input.a = op.x.data, input.b = op.weight_ih.data, input.c = op.gates.data;
  gemm(device, input);

  Gemm step = product<T>(op);
  step.transpose_b = true, step.float_output = true;
  step.m = batch, step.n = 4 * width, step.k = width;
  step.b = op.weight_hh.data, step.c = recurrent;
  for (std::int64_t t = 0; t < steps; ++t) {
    const T* const h_before = t == 0 ? op.h0.data : op.h.data + (t - 1) * batch * width;
    step.a = h_before;
    if (h_before != nullptr) gemm(device, step);
    launch(device, grid_of_places<T>(batch, width), lstm_sequence_forward_kernel<T>, op,
           ForwardStep{.t = t,
                       .recurrent = h_before == nullptr ? nullptr : recurrent,
                       .c_before = t == 0 ? op.c0.data : op.c.data + (t - 1) * batch * width});
  }
}

template <class T>
void run(const Cuda& device, const LstmSequenceBackward<T>& op) {
  ScratchCutter cut(device, op.scratch);
  const BackwardScratch<T> scratch = lay_out_backward(cut, op);
  cut.expect_enough("lstm_sequence: scratch bytes");
  const auto [steps, batch, width] = op.h.extent;
  const Grid grid = grid_of_places<T>(batch, width);
  note_row_width<T>("H", width);

  Gemm step = product<T>(op);
  step.float_output = true;
  step.m = batch, step.n = width, step.k = 4 * width;
  step.b = op.weight_hh.data, step.c = scratch.parts.d_h_recurrent;
  for (std::int64_t t = steps; t-- > 0;) {
    launch(device, grid, lstm_sequence_backward_kernel<T>, op, scratch.parts, t);
    step.a = op.gates.data + t * batch * 4 * width;
    if (t > 0 || op.d_h0.present()) gemm(device, step);
  }
  if (op.d_h0.present() || op.d_c0.present()) {
    launch(device, grid, lstm_sequence_initial_state_kernel<T>, op, scratch.parts);
  }
  multiply_weights<T>(device, op, scratch.parts.h_before);
  if (op.d_bias_ih.present() || op.d_bias_hh.present()) {
    run(device, ColumnSum<T>{.x = {op.gates.data, {steps * batch, 4 * width}},
                             .sum = {scratch.bias_sum},
                             .scratch = scratch.sum_scratch});
    launch(device, {.blocks = blocks_for(4 * width, kLstmThreads), .threads = kLstmThreads},
           lstm_sequence_bias_kernel<T>, op, View<const float, 1>(scratch.bias_sum));
  }
}

namespace {
[[noreturn]] void refuse_double() {
  throw ConfigError("lstm_sequence: f64 on CUDA, expected f32 or bf16");
}
}  // namespace
template <>
std::size_t scratch_bytes(const Cuda&, const LstmSequenceForward<double>&) {
  refuse_double();
}
template <>
std::size_t scratch_bytes(const Cuda&, const LstmSequenceBackward<double>&) {
  refuse_double();
}
template <>
void run(const Cuda&, const LstmSequenceForward<double>&) {
  refuse_double();
}
template <>
void run(const Cuda&, const LstmSequenceBackward<double>&) {
  refuse_double();
}
template std::size_t scratch_bytes(const Cuda&, const LstmSequenceForward<float>&);
template std::size_t scratch_bytes(const Cuda&, const LstmSequenceForward<bf16>&);
template std::size_t scratch_bytes(const Cuda&, const LstmSequenceBackward<float>&);
template std::size_t scratch_bytes(const Cuda&, const LstmSequenceBackward<bf16>&);
template void run(const Cuda&, const LstmSequenceForward<float>&);
template void run(const Cuda&, const LstmSequenceForward<bf16>&);
template void run(const Cuda&, const LstmSequenceBackward<float>&);
template void run(const Cuda&, const LstmSequenceBackward<bf16>&);

}  // namespace carousel
