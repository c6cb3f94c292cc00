#include "kernels/additive_attention/additive_attention.h"

#include "kernels/common/check.h"

namespace carousel {
namespace {

/// What both passes have in common.
template <class Op>
void check_inputs(const Op& op) {
  const auto [queries, rows, width] = op.q.extent;
  const std::int64_t keys = op.k.extent[0];
  expect_extent("additive_attention: rows of k", op.k.extent[1], rows);
  expect_extent("additive_attention: columns of k", op.k.extent[2], width);
  expect_extent("additive_attention: steps of v", op.v.extent[0], keys);
  expect_extent("additive_attention: rows of v", op.v.extent[1], rows);
  expect_extent("additive_attention: length of score", op.score.extent[0], width);
  if (op.length.present()) {
    expect_extent("additive_attention: length rows", op.length.extent[0], rows);
  }
  expect_extent("additive_attention: rows of weights", op.weights.extent[0], rows);
  expect_extent("additive_attention: queries of weights", op.weights.extent[1], queries);
  expect_extent("additive_attention: keys of weights", op.weights.extent[2], keys);
}

void check_steps(const std::array<std::int64_t, 3>& got, const std::array<std::int64_t, 3>& want,
                 const char* steps, const char* columns) {
  expect_extent(steps, got[0], want[0]);
  expect_extent("additive_attention: rows", got[1], want[1]);
  expect_extent(columns, got[2], want[2]);
}

template <class T>
void check_gradient(const Gradient<T, 3>& d, const std::array<std::int64_t, 3>& want) {
  if (!d.present()) return;
  check_steps(d.view.extent, want, "additive_attention: steps of a gradient",
              "additive_attention: columns of a gradient");
}

}  // namespace

template <class T>
void AdditiveAttentionForward<T>::check() const {
  check_inputs(*this);
  check_steps(y.extent, {q.extent[0], q.extent[1], v.extent[2]}, "additive_attention: steps of y",
              "additive_attention: columns of y");
}

template <class T>
void AdditiveAttentionBackward<T>::check() const {
  check_inputs(*this);
  check_steps(d_y.extent, {q.extent[0], q.extent[1], v.extent[2]},
              "additive_attention: steps of d_y", "additive_attention: columns of d_y");
  check_gradient(d_q, q.extent);
  check_gradient(d_k, k.extent);
  check_gradient(d_v, v.extent);
  if (d_score.present()) {
    expect_extent("additive_attention: length of d_score", d_score.view.extent[0], q.extent[2]);
  }
}

template void AdditiveAttentionForward<float>::check() const;
template void AdditiveAttentionForward<bf16>::check() const;
template void AdditiveAttentionForward<double>::check() const;
template void AdditiveAttentionBackward<float>::check() const;
template void AdditiveAttentionBackward<bf16>::check() const;
template void AdditiveAttentionBackward<double>::check() const;

}  // namespace carousel
