// What the contracts of the embedding's ops say about bad input.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/embedding/embedding.h"
#include "tests/kernels/embedding_problem.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;
using test::embedding::expect_rows_of_dense;
using test::embedding::solve;

TEST(Embedding, ATokenOutsideTheVocabularyGivesNaNAndNoGradient) {
  for (const Device& device : test::devices()) {
    for (const std::int32_t bad : {-1, 2, 1'000'000'000, kNoToken + 1, INT32_MAX}) {
      const auto s = solve<float>(
          device, {.vocab = 2, .width = 1, .token = {1, bad}, .weight = {3, 4}, .d_y = {5, 6}});
      EXPECT_EQ(s.y[0], 4);
      EXPECT_TRUE(std::isnan(s.y[1]));
      EXPECT_EQ(s.d_weight, (std::vector<float>{0, 5}));
    }
  }
}

TEST(Embedding, WhereThereIsNoTokenAreZerosAndNoGradient) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    const auto s = solve<T>(device, {.vocab = 2,
                                     .width = 3,
                                     .token = {kNoToken, 1},
                                     .weight = {1, 2, 3, 4, 5, 6},
                                     .d_y = {9, 9, 9, 7, 8, 9}});
    EXPECT_EQ(test::as_double(s.y), (std::vector<double>{0, 0, 0, 4, 5, 6}));
    EXPECT_EQ(s.d_weight, (std::vector<float>{0, 0, 0, 7, 8, 9}));
  });
}

TEST(Embedding, RowsOfNothingAreNone) {
  for (const Device& device : test::devices()) {
    expect_rows_of_dense<float>(
        device, {.vocab = 3, .width = 0, .token = {2, 0, 2}, .weight = {}, .d_y = {}});
    expect_rows_of_dense<float>(
        device, {.vocab = 2, .width = 1, .token = {-1, 2}, .weight = {3, 4}, .d_y = {5, 6}});
    expect_rows_of_dense<float>(device,
                                {.vocab = 0, .width = 1, .token = {0}, .weight = {}, .d_y = {1}});
  }
}

// A vocabulary of 2 · 10⁹ needs no more memory than one of 10.
TEST(Embedding, RowsCostWhatTheTokensCost) {
  for (const Device& device : test::devices()) {
    const Buffer<float> d_y(device, std::vector<float>{1, 2, 4}), d_row(device, std::size_t{3});
    const Buffer<std::int32_t> token(device, std::vector<std::int32_t>{1'999'999'999, 5, 5});
    const Buffer<std::int32_t> row(device, std::size_t{3}), row_count(device, std::size_t{1});
    EmbeddingRowBackward<float> op{.vocab = 10,
                                   .d_y = d_y.view(3, 1),
                                   .token = token.view(3),
                                   .row = row.view(3),
                                   .row_count = row_count.view(1),
                                   .d_row = d_row.view(3, 1)};
    const std::size_t few = scratch_bytes(device, op);
    op.vocab = 2'000'000'000;
    EXPECT_EQ(scratch_bytes(device, op), few);
    const auto scratch = test::give_scratch(device, op);
    run(device, op);
    EXPECT_EQ(row_count.read()[0], 2);
    EXPECT_EQ(row.read()[0], 5);
    EXPECT_EQ(row.read()[1], 1'999'999'999);
    EXPECT_EQ(d_row.read()[0], 6.0F);
    EXPECT_EQ(d_row.read()[1], 1.0F);
  }
}

TEST(Embedding, AnEmptyVocabularyGivesNaN) {
  for (const Device& device : test::devices()) {
    const auto s = solve<float>(
        device, {.vocab = 0, .width = 2, .token = {0, 0}, .weight = {}, .d_y = {1, 1, 1, 1}});
    for (const float y : s.y) EXPECT_TRUE(std::isnan(y));
    EXPECT_TRUE(s.d_weight.empty());
  }
}

TEST(Embedding, RefusesWhatItsContractRefuses) {
  const Buffer<float> numbers(Cpu{}, 12);
  const Buffer<std::int32_t> token(Cpu{}, 3);
  const auto forward = [&](std::int64_t rows, std::int64_t columns) {
    return EmbeddingForward<float>{
        .weight = numbers.view(3, 2), .token = token.view(3), .y = numbers.view(rows, columns)};
  };
  EXPECT_NO_THROW(forward(3, 2).check());
  EXPECT_THROW(forward(2, 2).check(), ShapeError);
  EXPECT_THROW(forward(3, 1).check(), ShapeError);

  const auto backward = [&](std::int64_t tokens, std::int64_t columns) {
    return EmbeddingBackward<float>{.d_y = numbers.view(3, 2),
                                    .token = token.view(tokens),
                                    .d_weight = {numbers.view(4, columns)}};
  };
  EXPECT_NO_THROW(backward(3, 2).check());
  EXPECT_THROW(backward(2, 2).check(), ShapeError);
  EXPECT_THROW(backward(3, 3).check(), ShapeError);
  EmbeddingBackward<float> shared = backward(6, 2);
  shared.coefficient = numbers.view(6);
  EXPECT_NO_THROW(shared.check());
  shared.coefficient = numbers.view(5);
  EXPECT_THROW(shared.check(), ShapeError);
  shared.coefficient = numbers.view(5), shared.token = token.view(5);
  EXPECT_THROW(shared.check(), ShapeError);
  const auto rows = [&](std::int64_t tokens, std::int64_t columns) {
    return EmbeddingRowBackward<float>{.vocab = 4,
                                       .d_y = numbers.view(3, 2),
                                       .token = token.view(3),
                                       .row = token.view(tokens),
                                       .row_count = token.view(1),
                                       .d_row = numbers.view(3, columns)};
  };
  EXPECT_NO_THROW(rows(3, 2).check());
  EXPECT_THROW(rows(2, 2).check(), ShapeError);
  EXPECT_THROW(rows(3, 3).check(), ShapeError);
  const Buffer<std::int64_t> step(Cpu{}, 1);
  const auto refuse = [](auto op, const RowDropout& dropout) {
    op.dropout = dropout;
    op.check();
  };
  for (const float bad : {-0.1F, 1.1F, NAN}) {
    const RowDropout dropout{.drop_probability = bad, .source = {.step = step.view(1)}};
    EXPECT_THROW(refuse(forward(3, 2), dropout), ConfigError);
    EXPECT_THROW(refuse(backward(3, 2), dropout), ConfigError);
    EXPECT_THROW(refuse(rows(3, 2), dropout), ConfigError);
  }
  const RowDropout no_step{.drop_probability = 0.5F};
  EXPECT_THROW(refuse(forward(3, 2), no_step), ShapeError);
  EXPECT_THROW(refuse(backward(3, 2), no_step), ShapeError);
  EXPECT_THROW(refuse(rows(3, 2), no_step), ShapeError);
  EmbeddingBackward<float> cramped = backward(3, 2);
  const auto scratch = test::give_scratch(Cpu{}, cramped);
  --cramped.scratch.extent[0];
  EXPECT_THROW(run(Cpu{}, cramped), ShapeError);
}

}  // namespace
}  // namespace carousel
