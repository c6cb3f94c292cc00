#include "kernels/linear_cross_entropy/plan.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "kernels/common/journal.h"
#include "kernels/reduce/reduce.h"
#include "tests/support/device.h"

namespace carousel::linear_cross_entropy {
namespace {

// N = 4, V = 6, H = 2: 24 logits, products of 96 operations; in bytes the weight is 48, hidden 32 and
// the logits 96.
TEST(LinearCrossEntropyPlan, CostsByHand) {
  const Work work{.rows = 4, .vocab = 6, .width = 2};
  const LogitTile by_rows{2, 6}, by_words{4, 3};
  Rates rates{.flops_per_logit = 10, .flops_per_row = 5};
  // Each product: operations, then what it reads and writes.
  const double bare = (96 + 48 + 32 + 96) + (96 + 96 + 48 + 32) + (96 + 96 + 32 + 48);
  const double loss = 24 * 10 + 2 * 96;
  // The weight passes twice, and its gradient is written, then read and written.
  EXPECT_DOUBLE_EQ(cost(work, by_rows, rates), ((96 + 2 * 48 + 32 + 96) + (loss + 4 * 5) +
                                                (96 + 96 + 2 * 48 + 32) + (96 + 96 + 32 + 3 * 48)) /
                                                   bare);
  // Logits and loss twice; hidden passes twice, and its gradient is written, then read and written.
  EXPECT_DOUBLE_EQ(cost(work, by_words, rates),
                   (2 * (96 + 48 + 2 * 32 + 96 + loss + 8 * 5) + (96 + 96 + 48 + 3 * 32) +
                    (96 + 96 + 2 * 32 + 48)) /
                       bare);
  Work loss_only = work;
  loss_only.gradients = loss_only.d_hidden = loss_only.d_weight = false;
  EXPECT_DOUBLE_EQ(cost(loss_only, by_words, rates),
                   (96 + 48 + 2 * 32 + 96 + loss + 8 * 5.0) / (96 + 48 + 32 + 96));

  rates.cache_bytes = tile_bytes(work, by_rows);  // of the tile, but not of all logits at once
  EXPECT_DOUBLE_EQ(
      cost(work, by_rows, rates),
      ((96 + 2 * 48 + 32) + (24 * 10 + 4 * 5) + (96 + 2 * 48 + 32) + (96 + 32 + 3 * 48)) / bare);
  rates.cache_bytes = 0, rates.overlaps = true;  // the longer of operations and bytes
  EXPECT_DOUBLE_EQ(cost(work, by_words, rates), (2 * ((48 + 2 * 32 + 96) + (24 * 10 + 8 * 5)) +
                                                 (96 + 48 + 3 * 32) + (96 + 2 * 32 + 48)) /
                                                    (3.0 * (48 + 32 + 96)));
}

template <class T>
LinearCrossEntropy<T> op_of(std::int64_t rows, std::int64_t width, std::int64_t vocab,
                            bool gradients) {
  static T hidden{};
  static Accumulator<T> weight{};
  LinearCrossEntropy<T> op{};
  op.hidden.extent = {rows, width};
  op.weight.extent = {vocab, width};
  if (gradients) op.d_hidden.view.data = &hidden, op.d_weight.view.data = &weight;
  return op;
}

enum Way { kAtOnce, kByRows, kByWords };
Way way_of(const Work& work, const LogitTile& tile) {
  if (tile.words < work.vocab) return kByWords;
  return tile.rows < work.rows ? kByRows : kAtOnce;
}

template <class T>
void expect_way(const Device& device, std::int64_t rows, std::int64_t width, std::int64_t vocab,
                Way want, bool gradients = true) {
  SCOPED_TRACE(testing::Message() << (is_cpu(device) ? "cpu, [" : "cuda, [") << rows << ", "
                                  << vocab << "], H = " << width);
  const auto op = op_of<T>(rows, width, vocab, gradients);
  const Work work = work_of(op, device);
  const Plan chosen = plan(op, device);
  EXPECT_EQ(way_of(work, chosen.tile), want);
  EXPECT_EQ(chosen.cost, cost(work, chosen.tile, rates_of(op, device)));
  EXPECT_LE(tile_bytes(work, chosen.tile), LinearCrossEntropy<T>::kScratchLimit);
  if (chosen.refused.rows > 0) {
    EXPECT_NE(way_of(work, chosen.refused), want);
    EXPECT_LE(chosen.cost, chosen.refused_cost);
  }
}

TEST(LinearCrossEntropyPlan, CutsWordsWhereWholeRowsAreTooFew) {
  for (const Device& device : test::devices()) {
    const bool cpu = is_cpu(device);
    for (const std::int64_t width : {256, 650, 1024}) {
      expect_way<float>(device, 2048, width, 65, kAtOnce);
      expect_way<float>(device, 4096, width, 50'257, kByRows);
      // In float a GPU's products take longer than the weight's traffic.
      expect_way<float>(device, 4096, width, 256'000, cpu ? kByWords : kByRows);
      expect_way<bf16>(device, 4096, width, 256'000, kByWords);
    }
    // The loss alone takes no second product.
    if (cpu) expect_way<float>(device, 4096, 650, 50'257, kByWords, /*gradients=*/false);
    // Tensor cores wait for memory sooner.
    expect_way<bf16>(device, 4096, 1024, 33'278, cpu ? kByRows : kByWords);
    // d_hidden's float sums of all rows are more than the limit.
    expect_way<bf16>(device, 65'536, 4096, 256'000, kByWords);
  }
}

// Products that widen their operands would copy the whole weight.
TEST(LinearCrossEntropyPlan, LeavesRoomForTheCopiesOfProducts) {
  const Rates rates{.flops_per_byte = 16, .flops_per_logit = 100, .row_cache_bytes = 1 << 20};
  Work work{.rows = 4096, .vocab = 50'257, .width = 1024, .element_bytes = 2, .logit_bytes = 6};
  EXPECT_EQ(way_of(work, plan(work, rates).tile), kByRows);
  work.widens = true;
  const LogitTile tile = plan(work, rates).tile;
  EXPECT_EQ(way_of(work, tile), kByWords);
  EXPECT_GT(tile_bytes(work, tile), 4 * (tile.words + tile.rows) * work.width);
  EXPECT_LE(tile_bytes(work, tile), LinearCrossEntropy<bf16>::kScratchLimit);
}

// The sums of d_bias are split among blocks where there are few words, and need scratch then.
TEST(LinearCrossEntropyPlan, ScratchSufficesForALastTileOfFewWords) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  const Device& device = *test::cuda_device();
  LinearCrossEntropy<float> op = op_of<float>(64, 8, 34'100, true);
  op.chunk_words = 34'000;
  const std::size_t without = scratch_bytes(device, op);
  float one{};
  op.d_bias.view = {&one, {34'100}};
  ASSERT_EQ(column_sum_scratch(64, 34'000), 0);
  EXPECT_GE(scratch_bytes(device, op), without + sizeof(float) * 2 * 100);
}

TEST(LinearCrossEntropyPlan, TakesTheTileItIsGiven) {
  LinearCrossEntropy<float> op = op_of<float>(100, 8, 1000, true);
  const auto tile = [&](std::int64_t rows, std::int64_t words) {
    op.chunk_rows = rows, op.chunk_words = words;
    return op.tile(Cpu{});
  };
  EXPECT_EQ(tile(7, 0), (LogitTile{7, 1000}));
  EXPECT_EQ(tile(0, 7), (LogitTile{100, 7}));
  EXPECT_EQ(tile(7, 7), (LogitTile{7, 7}));
  EXPECT_EQ(tile(101, 1001), (LogitTile{100, 1000}));
}

TEST(LinearCrossEntropyPlan, TellsTheJournal) {
  const auto told = [](const Plan& plan) {
    const Journal journal;
    note_plan(Work{.rows = 9, .vocab = 8}, plan);
    return journal.entries().empty() ? std::string() : journal.entries().at(0).text;
  };
  EXPECT_EQ(told({.tile = {9, 8}}), "");
  EXPECT_EQ(told({.tile = {4, 8}}),
            "chunks of 4 rows; refused: all 9 rows and 8 words of logits at once, too many bytes");
  EXPECT_EQ(
      told({.tile = {4, 8}, .refused = {9, 2}, .cost = 1.25, .refused_cost = 1.5}),
      "chunks of 4 rows, planned to take 1.25 × the bare products; refused: chunks of 2 words, "
      "their logits computed twice, 1.50 ×; all 9 rows and 8 words of logits at once, too many "
      "bytes");
  EXPECT_EQ(told({.tile = {3, 2}, .refused = {4, 8}, .cost = 1.4, .refused_cost = 1.9}),
            "chunks of 2 words by 3 rows, their logits computed twice, planned to take 1.40 × the "
            "bare products; refused: chunks of 4 rows, 1.90 ×; all 9 rows and 8 words of logits at "
            "once, too many bytes");
}

}  // namespace
}  // namespace carousel::linear_cross_entropy
