#include <algorithm>
#include <optional>

#include "kernels/common/cpu_product.h"
#include "kernels/common/cpu_rows.h"
#include "kernels/common/scratch.h"
#include "kernels/lstm_sequence/lstm_cell_cpu.h"
#include "kernels/lstm_sequence/lstm_sequence.h"
#include "kernels/reduce/reduce.h"

namespace carousel {
namespace {

template <class T>
struct ForwardPass {
  using Acc = Accumulator<T>;
  const LstmSequenceForward<T>& op;
  std::int64_t steps, batch, width;
  BatchSlices slices;
  PackedShape weight_shape;
  Acc *recurrent, *bias, *zeros, *h_wide;  // [B, 4H], [4H], [4H], [B, H] if kWidened
  std::byte* packed;

  ForwardPass(const LstmSequenceForward<T>& forward, ScratchCutter& cut)
      : op(forward),
        steps(op.h.extent[0]),
        batch(op.h.extent[1]),
        width(op.h.extent[2]),
        slices(batch),
        weight_shape{.k = width, .n = 4 * width, .rows = slices.most_rows()},
        recurrent(cut.take<Acc>(batch * 4 * width)),
        bias(cut.take<Acc>(4 * width)),
        zeros(cut.take<Acc>(4 * width)),
        h_wide(cut.take<Acc>(kWidened<T> ? batch * width : 0)),
        packed(cut.take<std::byte>(
            steps > 1 ? static_cast<std::int64_t>(PackedMatrix<Acc>::bytes(weight_shape)) : 0)) {}

  /// h[t−1] of a row as the product wants it, or null where there is none.
  const Acc* h_before(std::int64_t t, std::int64_t row) const {
    if (t == 0 && !op.h0.present()) return nullptr;
    if constexpr (kWidened<T>) {
      return h_wide + row * width;
    } else {
      return (t == 0 ? op.h0.data : op.h.data + (t - 1) * batch * width) + row * width;
    }
  }

  void run_row(std::int64_t t, std::int64_t row) const {
    const bool fresh = op.reset.present() && op.reset(t, row) != 0;
    const Acc* const c_before = t == 0 ? op.c0.data : op.c.data + (t - 1) * batch * width;
    const std::int64_t n = t * batch + row;
    LstmRowForward<T>{
        .width = width,
        .gates = op.gates.data + n * 4 * width,
        .recurrent = fresh || h_before(t, row) == nullptr ? zeros : recurrent + row * 4 * width,
        .bias = bias,
        .c_before = fresh || c_before == nullptr ? zeros : c_before + row * width,
        .c = op.c.data + n * width,
        .h = op.h.data + n * width,
        .h_wide = kWidened<T> ? h_wide + row * width : nullptr}
        .run();
  }

  void run() const {
    multiply(CpuProduct<T>{.transpose_b = true,
                           .m = steps * batch,
                           .n = 4 * width,
                           .k = op.x.extent[2],
                           .a = op.x.data,
                           .b = op.weight_ih.data,
                           .c = op.gates.data});
    std::fill_n(zeros, 4 * width, Acc{0});
    for (std::int64_t k = 0; k < 4 * width; ++k) {
      bias[k] = op.bias_ih.present() ? op.bias_ih(k) + op.bias_hh(k) : Acc{0};
    }
    if (kWidened<T> && op.h0.present()) std::copy_n(op.h0.data, batch * width, h_wide);
    // Packing costs more than a product of few rows, and a step of generation has no second one.
    std::optional<PackedMatrix<Acc>> weight;
    if (steps > 1) {
      weight.emplace(weight_shape, op.weight_hh.data, true, packed);
    } else if (op.h0.present()) {
      multiply(CpuProduct<T, Acc>{.transpose_b = true,
                                  .m = batch,
                                  .n = 4 * width,
                                  .k = width,
                                  .a = op.h0.data,
                                  .b = op.weight_hh.data,
                                  .c = recurrent});
    }
    slices.note();
    slices.for_each([&](std::int64_t first, std::int64_t last) {
      for (std::int64_t t = 0; t < steps; ++t) {
        if (const Acc* const h = h_before(t, first); weight && h != nullptr) {
          weight->multiply(last - first, h, recurrent + first * 4 * width, false);
        }
        for_rows(first, last, width, [&](std::int64_t row) { run_row(t, row); });
      }
    });
  }
};

template <class T>
struct BackwardPass {
  using Acc = Accumulator<T>;
  const LstmSequenceBackward<T>& op;
  std::int64_t steps, batch, width;
  BatchSlices slices;
  PackedShape weight_shape;
  Acc *d_h_recurrent, *d_c, *zeros, *bias_sum;  // [B, H], [B, H], [H], [4H]
  T *no_d_h, *h_before;                         // [H] zeros; ĥ: [T, B, H] if rows reset
  Acc* gates_wide;                              // [B, 4H] if kWidened
  std::byte* packed;

  BackwardPass(const LstmSequenceBackward<T>& backward, ScratchCutter& cut)
      : op(backward),
        steps(op.h.extent[0]),
        batch(op.h.extent[1]),
        width(op.h.extent[2]),
        slices(batch),
        weight_shape{.k = 4 * width, .n = width, .rows = slices.most_rows()},
        d_h_recurrent(cut.take<Acc>(batch * width)),
        d_c(cut.take<Acc>(batch * width)),
        zeros(cut.take<Acc>(width)),
        bias_sum(cut.take<Acc>(4 * width)),
        no_d_h(cut.take<T>(width)),
        h_before(cut.take<T>(masks_h() ? steps * batch * width : 0)),
        gates_wide(cut.take<Acc>(kWidened<T> ? batch * 4 * width : 0)),
        packed(cut.take<std::byte>(
            static_cast<std::int64_t>(PackedMatrix<Acc>::bytes(weight_shape)))) {}

  bool masks_h() const { return op.reset.present() && op.d_weight_hh.present(); }
  bool fresh(std::int64_t t, std::int64_t row) const {
    return op.reset.present() && t < steps && op.reset(t, row) != 0;
  }

  void start_row(std::int64_t row) const {
    for (std::int64_t j = row * width; j < (row + 1) * width; ++j) {
      d_h_recurrent[j] = op.d_h_last.present() ? static_cast<Acc>(op.d_h_last.data[j]) : Acc{0};
      d_c[j] = op.d_c_last.present() ? op.d_c_last.data[j] : Acc{0};
    }
  }

  void run_row(std::int64_t t, std::int64_t row) const {
    const bool cut_after = fresh(t + 1, row), cut_before = fresh(t, row);
    const std::int64_t n = t * batch + row;
    const Acc* const c_before = t == 0 ? op.c0.data : op.c.data + (t - 1) * batch * width;
    LstmRowBackward<T>{
        .width = width,
        .gates = op.gates.data + n * 4 * width,
        .gates_wide = kWidened<T> ? gates_wide + row * 4 * width : nullptr,
        .c = op.c.data + n * width,
        .c_before = cut_before || c_before == nullptr ? zeros : c_before + row * width,
        .d_h = op.d_h.present() ? op.d_h.data + n * width : no_d_h,
        .d_h_recurrent = cut_after ? zeros : d_h_recurrent + row * width,
        .d_c_next = cut_after ? zeros : d_c + row * width,
        .d_c_before = d_c + row * width}
        .run();
    if (masks_h()) {
      const T* const h = t == 0 ? op.h0.data : op.h.data + (t - 1) * batch * width;
      std::copy_n(cut_before || h == nullptr ? no_d_h : h + row * width, width,
                  h_before + n * width);
    }
  }

  void finish_row(std::int64_t row) const {
    const bool cut = fresh(0, row);
    for (std::int64_t j = row * width; j < (row + 1) * width; ++j) {
      if (op.d_h0.present()) {
        const Acc old = op.accumulate_d_h0 ? static_cast<Acc>(op.d_h0.data[j]) : Acc{0};
        op.d_h0.data[j] = static_cast<T>(old + (cut ? Acc{0} : d_h_recurrent[j]));
      }
      if (op.d_c0.present()) {
        const Acc old = op.accumulate_d_c0 ? op.d_c0.data[j] : Acc{0};
        op.d_c0.data[j] = old + (cut ? Acc{0} : d_c[j]);
      }
    }
  }

  void run() const {
    std::fill_n(zeros, width, Acc{0});
    std::fill_n(no_d_h, width, static_cast<T>(0.0F));
    const PackedMatrix<Acc> weight(weight_shape, op.weight_hh.data, false, packed);
    slices.note();
    slices.for_each([&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) start_row(row);
      for (std::int64_t t = steps; t-- > 0;) {
        for_rows(first, last, width, [&](std::int64_t row) { run_row(t, row); });
        if (t > 0 || op.d_h0.present()) {
          weight.multiply(last - first, d_gates(t, first), d_h_recurrent + first * width, false);
        }
      }
      for (std::int64_t row = first; row < last; ++row) finish_row(row);
    });
    multiply_weights();
    sum_biases();
  }

  const Acc* d_gates(std::int64_t t, std::int64_t row) const {
    if constexpr (kWidened<T>) {
      return gates_wide + row * 4 * width;
    } else {
      return op.gates.data + (t * batch + row) * 4 * width;
    }
  }

  void multiply_weights() const;
  void sum_biases() const;
};

/// The products over all steps, once δa is known everywhere.
template <class T>
void BackwardPass<T>::multiply_weights() const {
  const std::int64_t rows = steps * batch, input = op.x.extent[2];
  if (op.d_x.present()) {
    multiply(CpuProduct<T>{.accumulate = op.accumulate_d_x,
                           .m = rows,
                           .n = input,
                           .k = 4 * width,
                           .a = op.gates.data,
                           .b = op.weight_ih.data,
                           .c = op.d_x.data});
  }
  CpuProduct<T, Acc> sum{
      .transpose_a = true, .m = 4 * width, .a = op.gates.data, .b = nullptr, .c = nullptr};
  if (op.d_weight_ih.present()) {
    sum.accumulate = op.accumulate_d_weight_ih;
    sum.n = input, sum.k = rows, sum.b = op.x.data, sum.c = op.d_weight_ih.data;
    multiply(sum);
  }
  if (!op.d_weight_hh.present()) return;
  sum.accumulate = op.accumulate_d_weight_hh;
  sum.n = width, sum.c = op.d_weight_hh.data;
  if (masks_h()) {
    sum.k = rows, sum.b = h_before;
    multiply(sum);
    return;
  }
  // ĥ is h, one step later: no copy is needed to pair δa[1 …] with h[0 …].
  sum.k = std::max<std::int64_t>(steps - 1, 0) * batch;
  sum.a = op.gates.data + (steps > 0 ? batch * 4 * width : 0), sum.b = op.h.data;
  multiply(sum);
  if (op.h0.present() && steps > 0) {
    sum.accumulate = true;
    sum.k = batch, sum.a = op.gates.data, sum.b = op.h0.data;
    multiply(sum);
  }
}

/// One sum serves both biases.
template <class T>
void BackwardPass<T>::sum_biases() const {
  const bool ih = op.d_bias_ih.present(), hh = op.d_bias_hh.present();
  if (!ih && !hh) return;
  const std::int64_t columns = 4 * width;
  carousel::run(Cpu{}, ColumnSum<T>{.x = {op.gates.data, {steps * batch, columns}},
                                    .sum = {{bias_sum, {columns}}}});
  for (std::int64_t k = 0; k < columns; ++k) {
    if (ih) op.d_bias_ih(k) = bias_sum[k] + (op.accumulate_d_bias_ih ? op.d_bias_ih(k) : Acc{0});
    if (hh) op.d_bias_hh(k) = bias_sum[k] + (op.accumulate_d_bias_hh ? op.d_bias_hh(k) : Acc{0});
  }
}

}  // namespace

template <class T>
std::size_t scratch_bytes(const Cpu&, const LstmSequenceForward<T>& op) {
  ScratchCutter cut;
  ForwardPass<T>(op, cut);
  return cut.bytes();
}

template <class T>
std::size_t scratch_bytes(const Cpu&, const LstmSequenceBackward<T>& op) {
  ScratchCutter cut;
  BackwardPass<T>(op, cut);
  return cut.bytes();
}

template <class T>
void run(const Cpu& cpu, const LstmSequenceForward<T>& op) {
  ScratchCutter cut(cpu, op.scratch);
  const ForwardPass<T> pass(op, cut);
  cut.expect_enough("lstm_sequence: scratch bytes");
  pass.run();
}

template <class T>
void run(const Cpu& cpu, const LstmSequenceBackward<T>& op) {
  ScratchCutter cut(cpu, op.scratch);
  const BackwardPass<T> pass(op, cut);
  cut.expect_enough("lstm_sequence: scratch bytes");
  pass.run();
}

template std::size_t scratch_bytes(const Cpu&, const LstmSequenceForward<float>&);
template std::size_t scratch_bytes(const Cpu&, const LstmSequenceForward<bf16>&);
template std::size_t scratch_bytes(const Cpu&, const LstmSequenceForward<double>&);
template std::size_t scratch_bytes(const Cpu&, const LstmSequenceBackward<float>&);
template std::size_t scratch_bytes(const Cpu&, const LstmSequenceBackward<bf16>&);
template std::size_t scratch_bytes(const Cpu&, const LstmSequenceBackward<double>&);
template void run(const Cpu&, const LstmSequenceForward<float>&);
template void run(const Cpu&, const LstmSequenceForward<bf16>&);
template void run(const Cpu&, const LstmSequenceForward<double>&);
template void run(const Cpu&, const LstmSequenceBackward<float>&);
template void run(const Cpu&, const LstmSequenceBackward<bf16>&);
template void run(const Cpu&, const LstmSequenceBackward<double>&);

}  // namespace carousel
