#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "engine/ops.h"
#include "kernels/common/check.h"
#include "kernels/dropout/dropout.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

TEST(EmbeddingRule, TwoUsesOfOneWeightShareItsGradient) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor weight = test::tensor_of<float>(device, {3, 2}, {1, 2, 3, 4, 5, 6});
    const Tensor gradient = test::tensor_of<float>(device, {3, 2}, std::vector<float>(6, 9e9F));
    const Var w = tape.parameter(weight, gradient);
    const Var y = embedding(w, test::tensor_of<std::int32_t>(device, {2, 2}, {2, 0, 2, 2}));
    EXPECT_EQ(y.shape(), (Shape{2, 2, 2}));
    EXPECT_EQ(test::read<float>(y.value()), (std::vector<float>{5, 6, 1, 2, 5, 6, 5, 6}));
    const Var z = embedding(w, test::tensor_of<std::int32_t>(device, {1}, {0}));
    test::sum(y);
    test::sum(z);
    tape.backward();
    EXPECT_EQ(test::read<float>(gradient), (std::vector<float>{2, 2, 0, 0, 3, 3}));
  }
}

// With tied weights the output matrix is the raw parameter: no row of it is dropped, and its
// gradient joins that of the rows that were kept.
TEST(EmbeddingRule, DropsRowsInTheLookupAndNowhereElse) {
  for (const Device& device : test::devices()) {
    for (const bool row_sparse : {false, true}) {
      Arena arena(device);
      Tape tape(arena, true);
      const std::int64_t vocab = 40;
      const Tensor weight = test::tensor_of<float>(device, {vocab, 1}, std::vector<float>(40, 1));
      const Tensor gradient(device, {vocab, 1}, DType::f32);
      std::vector<std::int32_t> tokens;
      for (std::int32_t n = 0; n < 80; ++n) tokens.push_back(n % 40);
      const Tensor step = test::tensor_of<std::int64_t>(device, {1}, {4});
      const RandomSource source{.seed = 1, .stream = 2, .step = step.view<std::int64_t, 1>()};
      RowGradient rows;
      const Var w =
          row_sparse ? tape.row_sparse_parameter(weight, &rows) : tape.parameter(weight, gradient);
      const Tensor token = test::tensor_of<std::int32_t>(device, {80}, tokens);
      const Var y = embedding(w, token, 0.5F, source);
      EXPECT_EQ(test::read<float>(embedding(tape.constant(weight), token).value()),
                std::vector<float>(80, 1));
      test::sum(y);
      const Var x = tape.constant(test::tensor_of<float>(device, {3, 1}, {1, 1, 1}));
      if (!row_sparse) test::sum(matmul(x, w, true));
      tape.backward();
      const auto value = test::read<float>(y.value());
      const auto got = test::read<float>(row_sparse ? rows.values.slice(0, vocab) : gradient);
      for (std::size_t v = 0; v < 40; ++v) {
        const bool kept = dropout_keeps(source, 4, static_cast<std::int64_t>(v), 0.5F);
        EXPECT_EQ(value[v], kept ? 2 : 0);
        EXPECT_EQ(value[v + 40], value[v]);
        EXPECT_EQ(got[v], (kept ? 4 : 0) + (row_sparse ? 0 : 3));
      }
    }
  }
}

TEST(EmbeddingRule, AVectorHasRowsOfOneNumber) {
  for (const Device& device : test::devices()) {
    for (const bool row_sparse : {false, true}) {
      Arena arena(device);
      Tape tape(arena, true);
      const Tensor weight = test::tensor_of<float>(device, {5}, {1, 2, 3, 4, 5});
      const Tensor gradient(device, {5}, DType::f32);
      RowGradient rows;
      const Var w =
          row_sparse ? tape.row_sparse_parameter(weight, &rows) : tape.parameter(weight, gradient);
      const Var y = embedding(w, test::tensor_of<std::int32_t>(device, {3}, {3, 0, 3}));
      EXPECT_EQ(y.shape(), (Shape{3, 1}));
      EXPECT_EQ(test::read<float>(y.value()), (std::vector<float>{4, 1, 4}));
      test::sum(y);
      tape.backward();
      if (!row_sparse) {
        EXPECT_EQ(test::read<float>(gradient), (std::vector<float>{1, 0, 0, 2, 0}));
        continue;
      }
      EXPECT_EQ(test::read<std::int32_t>(rows.count)[0], 2);
      const auto row = test::read<std::int32_t>(rows.row);
      const auto values = test::read<float>(rows.values);
      for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(values[i], row[i] == 3 ? 2 : 1);
      EXPECT_EQ(row[0] + row[1], 3);
    }
  }
}

TEST(EmbeddingRule, RefusesATokenOfNoDimension) {
  const Device cpu = Cpu{};
  Arena arena(cpu);
  Tape tape(arena, false);
  const Var w = tape.constant(test::tensor_of<float>(cpu, {1, 1}, {1}));
  EXPECT_THROW(embedding(w, test::tensor_of<std::int32_t>(cpu, {}, {0})), ShapeError);
}

}  // namespace
}  // namespace carousel
