#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "engine/ops.h"
#include "kernels/embedding/embedding.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::read;

// Two contexts, [1, 2, 3]: the mean of rows 0 and 2, and row 2.
TEST(EmbeddingMeanRule, GradientsAreSharesOfDenseAndRowSparseParameters) {
  for (const Device& device : test::devices()) {
    for (const bool row_sparse : {false, true}) {
      Arena arena(device);
      Tape tape(arena, true);
      const Tensor weight = test::tensor_of<float>(device, {3, 2}, {1, 2, 3, 4, 5, 6});
      const Tensor gradient(device, {3, 2}, DType::f32);
      RowGradient rows;
      const Var w =
          row_sparse ? tape.row_sparse_parameter(weight, &rows) : tape.parameter(weight, gradient);
      const Var y =
          embedding_mean(w, test::tensor_of<std::int32_t>(device, {1, 2, 3},
                                                          {0, kNoToken, 2, kNoToken, 2, kNoToken}));
      EXPECT_EQ(y.shape(), (Shape{1, 2, 2}));
      EXPECT_EQ(read<float>(y.value()), (std::vector<float>{3, 4, 5, 6}));
      test::sum(y);
      tape.backward();
      if (!row_sparse) {
        EXPECT_EQ(read<float>(gradient), (std::vector<float>{0.5, 0.5, 0, 0, 1.5, 1.5}));
        continue;
      }
      EXPECT_EQ(read<std::int32_t>(rows.count)[0], 2);
      EXPECT_EQ(read<std::int32_t>(rows.row.slice(0, 2)), (std::vector<std::int32_t>{0, 2}));
      EXPECT_EQ(read<float>(rows.values.slice(0, 2)), (std::vector<float>{0.5, 0.5, 1.5, 1.5}));
    }
  }
}

}  // namespace
}  // namespace carousel
