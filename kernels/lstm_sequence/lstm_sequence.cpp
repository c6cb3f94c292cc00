#include "kernels/lstm_sequence/lstm_sequence.h"

#include "kernels/common/check.h"

namespace carousel {
namespace {

/// T, B, I, H of an op: from x and weight_hh, which every call has.
struct Sizes {
  std::int64_t steps, batch, input, width;
};

template <class Op>
Sizes sizes(const Op& op) {
  expect_present("lstm_sequence: x", op.x.present());
  expect_present("lstm_sequence: weight_ih", op.weight_ih.present());
  expect_present("lstm_sequence: weight_hh", op.weight_hh.present());
  expect_present("lstm_sequence: h", op.h.present());
  expect_present("lstm_sequence: c", op.c.present());
  expect_present("lstm_sequence: gates", op.gates.present());
  const auto [steps, batch, input] = op.x.extent;
  return {steps, batch, input, op.weight_hh.extent[1]};
}

template <class T>
void expect_vector(const char* what, const View<T, 1>& v, std::int64_t count) {
  if (v.present()) expect_extent(what, v.extent[0], count);
}

template <class T>
void expect_matrix(const char* what, const View<T, 2>& v, std::int64_t rows, std::int64_t columns) {
  if (!v.present()) return;
  expect_extent(what, v.extent[0], rows);
  expect_extent(what, v.extent[1], columns);
}

template <class T>
void expect_sequence(const char* what, const View<T, 3>& v, const Sizes& s, std::int64_t columns) {
  if (!v.present()) return;
  expect_extent(what, v.extent[0], s.steps);
  expect_extent(what, v.extent[1], s.batch);
  expect_extent(what, v.extent[2], columns);
}

/// What both passes have.
template <class Op>
void check_common(const Op& op, const Sizes& s) {
  expect_matrix("lstm_sequence: an extent of weight_hh", op.weight_hh, 4 * s.width, s.width);
  expect_matrix("lstm_sequence: an extent of weight_ih", op.weight_ih, 4 * s.width, s.input);
  expect_matrix("lstm_sequence: an extent of h0", op.h0, s.batch, s.width);
  expect_matrix("lstm_sequence: an extent of c0", op.c0, s.batch, s.width);
  expect_matrix("lstm_sequence: an extent of reset", op.reset, s.steps, s.batch);
  expect_sequence("lstm_sequence: an extent of h", op.h, s, s.width);
  expect_sequence("lstm_sequence: an extent of c", op.c, s, s.width);
  expect_sequence("lstm_sequence: an extent of gates", op.gates, s, 4 * s.width);
}

}  // namespace

template <class T>
void LstmSequenceForward<T>::check() const {
  const Sizes s = sizes(*this);
  check_common(*this, s);
  if (bias_ih.present() || bias_hh.present()) {
    expect_present("lstm_sequence: bias_ih, given bias_hh,", bias_ih.present());
    expect_present("lstm_sequence: bias_hh, given bias_ih,", bias_hh.present());
  }
  expect_vector("lstm_sequence: bias_ih size", bias_ih, 4 * s.width);
  expect_vector("lstm_sequence: bias_hh size", bias_hh, 4 * s.width);
}

template <class T>
void LstmSequenceBackward<T>::check() const {
  const Sizes s = sizes(*this);
  check_common(*this, s);
  expect_sequence("lstm_sequence: an extent of d_h", d_h, s, s.width);
  expect_matrix("lstm_sequence: an extent of d_h_last", d_h_last, s.batch, s.width);
  expect_matrix("lstm_sequence: an extent of d_c_last", d_c_last, s.batch, s.width);
  expect_sequence("lstm_sequence: an extent of d_x", d_x, s, s.input);
  expect_matrix("lstm_sequence: an extent of d_weight_ih", d_weight_ih, 4 * s.width, s.input);
  expect_matrix("lstm_sequence: an extent of d_weight_hh", d_weight_hh, 4 * s.width, s.width);
  expect_vector("lstm_sequence: d_bias_ih size", d_bias_ih, 4 * s.width);
  expect_vector("lstm_sequence: d_bias_hh size", d_bias_hh, 4 * s.width);
  expect_matrix("lstm_sequence: an extent of d_h0", d_h0, s.batch, s.width);
  expect_matrix("lstm_sequence: an extent of d_c0", d_c0, s.batch, s.width);
}

template struct LstmSequenceForward<float>;
template struct LstmSequenceForward<bf16>;
template struct LstmSequenceForward<double>;
template struct LstmSequenceBackward<float>;
template struct LstmSequenceBackward<bf16>;
template struct LstmSequenceBackward<double>;

}  // namespace carousel
