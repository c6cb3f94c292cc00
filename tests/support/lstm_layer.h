#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/lstm_sequence/lstm_sequence.h"
#include "tests/support/buffer.h"
#include "tests/support/uniform.h"

namespace carousel::test {

/// The sizes of a layer to be timed.
struct LstmLayerSize {
  std::int64_t T, B, I, H;
  std::size_t rows() const { return static_cast<std::size_t>(T * B); }
  /// Of the forward pass: two products. The backward pass has four of the same sizes.
  double flops() const { return 8.0 * static_cast<double>(T * B * H) * static_cast<double>(I + H); }
};

/// Everything a layer reads and writes in one training step, with a state carried in.
template <class T>
struct LstmLayer {
  using Acc = Accumulator<T>;
  Device device;
  LstmLayerSize size;
  bool tf32 = false;
  std::size_t units = size.rows() * static_cast<std::size_t>(size.H);
  std::size_t input = static_cast<std::size_t>(size.I), width = static_cast<std::size_t>(size.H);
  double bound = 1 / std::sqrt(static_cast<double>(size.H));
  Buffer<T> x = uniform<T>(device, size.T* size.B* size.I);
  Buffer<T> weight_ih = uniform<T>(device, 4 * size.H * size.I, bound);
  Buffer<T> weight_hh = uniform<T>(device, 4 * size.H * size.H, bound);
  Buffer<Acc> bias = uniform<Acc>(device, 4 * size.H, bound);
  Buffer<T> h0 = uniform<T>(device, size.B* size.H);
  Buffer<Acc> c0 = uniform<Acc>(device, size.B* size.H);
  Buffer<T> h{device, units}, gates{device, 4 * units};
  Buffer<T> d_h = uniform<T>(device, size.T* size.B* size.H);
  Buffer<Acc> c{device, units};
  Buffer<T> d_x{device, size.rows() * input};
  Buffer<Acc> d_weight_ih{device, 4 * width*input}, d_weight_hh{device, 4 * width*width};
  Buffer<Acc> d_bias_ih{device, 4 * width}, d_bias_hh{device, 4 * width};

  LstmSequenceForward<T> forward() const {
    const auto [t, b, i, n] = size;
    return {.x = x.view(t, b, i),
            .weight_ih = weight_ih.view(4 * n, i),
            .weight_hh = weight_hh.view(4 * n, n),
            .bias_ih = bias.view(4 * n),
            .bias_hh = bias.view(4 * n),
            .h0 = h0.view(b, n),
            .c0 = c0.view(b, n),
            .h = h.view(t, b, n),
            .c = c.view(t, b, n),
            .gates = gates.view(t, b, 4 * n),
            .tf32 = tf32};
  }
  LstmSequenceBackward<T> backward() const {
    const auto [t, b, i, n] = size;
    return {.d_h = d_h.view(t, b, n),
            .x = x.view(t, b, i),
            .weight_ih = weight_ih.view(4 * n, i),
            .weight_hh = weight_hh.view(4 * n, n),
            .h0 = h0.view(b, n),
            .c0 = c0.view(b, n),
            .h = h.view(t, b, n),
            .c = c.view(t, b, n),
            .gates = gates.view(t, b, 4 * n),
            .d_x = d_x.view(t, b, i),
            .d_weight_ih = d_weight_ih.view(4 * n, i),
            .d_weight_hh = d_weight_hh.view(4 * n, n),
            .d_bias_ih = d_bias_ih.view(4 * n),
            .d_bias_hh = d_bias_hh.view(4 * n),
            .tf32 = tf32};
  }
};

}  // namespace carousel::test
