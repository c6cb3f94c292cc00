#pragma once

#include <cudnn.h>

#include <cstddef>

namespace emulation {

/// One LSTM layer's sizes, and the device memory of whichever pass it is. Equations in double,
/// results rounded as they are stored.
struct CudnnLstm {
  std::size_t T = 0, B = 0, I = 0, H = 0;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  const void *x = nullptr, *h0 = nullptr, *c0 = nullptr, *weights = nullptr;
  void *y = nullptr, *h_last = nullptr, *c_last = nullptr;
  const void *d_y = nullptr, *d_h_last = nullptr, *d_c_last = nullptr;
  void *d_x = nullptr, *d_h0 = nullptr, *d_c0 = nullptr, *d_weights = nullptr;
  void *workspace = nullptr, *reserve = nullptr;

  std::size_t element_bytes() const { return type == CUDNN_DATA_FLOAT ? 4 : 2; }
  std::size_t parameter_bytes() const;
  std::size_t workspace_bytes() const { return B * 4 * H * sizeof(double); }
  std::size_t reserve_bytes() const;

  /// Bytes from the start of the parameters to those of a product, 0–3 of the input and 4–7 of the
  /// state, for the gates i, f, g, o. Not in that order: nobody but this may know where they are.
  std::size_t weight_at(std::size_t product) const;
  std::size_t bias_at(std::size_t product) const;

  /// Queues one of the passes on a stream.
  void queue(cudaStream_t stream, void (CudnnLstm::*pass)() const) const;

  /// What the device does; throw where the reserve is not what the pass before left.
  void forward() const;
  void backward_data() const;
  void backward_weights() const;

 private:
  struct Saved;
  double weight(std::size_t product, std::size_t row, std::size_t column) const;
  double bias(std::size_t product, std::size_t row) const;
};

}  // namespace emulation
