// negative_sampling() and hierarchical_softmax() on the tape.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "engine/ops.h"
#include "kernels/common/alias_table.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/hierarchical_softmax/hierarchical_softmax.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::read;

constexpr std::int64_t kSteps = 3, kRows = 4, kWidth = 5, kVocab = 12;

Tensor uniform(const Device& device, Shape shape, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<float> values(static_cast<std::size_t>(shape.size()));
  for (float& v : values) v = static_cast<float>(random()) * 0x1p-31F - 1;
  return test::tensor_of(device, shape, values);
}

/// A tape with hidden units [T, B, E], targets of which one is ignored, and what losses need.
struct Head {
  enum class Table : std::uint8_t { dense, row_sparse, constant };

  explicit Head(const Device& device, Table table = Table::dense, bool recording = true)
      : arena(device),
        tape(arena, recording),
        step(test::tensor_of<std::int64_t>(device, {1}, {3})),
        d_weight(uniform(device, {kVocab, kWidth}, 99)) {
    hidden = tape.parameter(uniform(device, {kSteps, kRows, kWidth}, 1),
                            uniform(device, {kSteps, kRows, kWidth}, 99));
    const Tensor values = uniform(device, {kVocab, kWidth}, 2);
    weight = table == Table::row_sparse ? tape.row_sparse_parameter(values, &rows)
             : table == Table::dense    ? tape.parameter(values, d_weight)
                                        : tape.constant(values);
    std::vector<std::int32_t> targets;
    for (std::int32_t n = 0; n < kSteps * kRows; ++n) targets.push_back(n * 5 % 12);
    targets[4] = kIgnoreTarget;
    target = test::tensor_of(device, {kSteps, kRows}, targets);
    const std::vector<double> weights{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    columns = test::tensor_of(device, {kVocab}, alias_columns(weights));
    const HuffmanTree huffman(std::vector<std::int64_t>{1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144});
    const std::int64_t nodes = std::ssize(huffman.node);
    tree = {.start = test::tensor_of(device, {kVocab + 1}, huffman.start),
            .node = test::tensor_of(device, {nodes}, huffman.node),
            .turn = test::tensor_of(device, {nodes}, huffman.turn),
            .depth = huffman.depth};
  }

  Loss loss(bool by_tree, const ChoiceOptions& options = {}) const {
    if (by_tree) return hierarchical_softmax(hidden, weight, target, tree, options);
    return negative_sampling(
        hidden, weight, target,
        {.columns = columns, .words = 3, .source = {.step = step.view<std::int64_t, 1>()}},
        options);
  }

  Arena arena;
  Tape tape;
  Tensor step, d_weight, target, columns;
  WordTree tree;
  RowGradient rows;
  Var hidden, weight;
};

class ChoiceLossRule : public testing::TestWithParam<std::tuple<Device, bool>> {
 protected:
  const Device& device() const { return std::get<0>(GetParam()); }
  bool by_tree() const { return std::get<1>(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Losses, ChoiceLossRule,
                         testing::Combine(testing::ValuesIn(test::devices()), testing::Bool()),
                         [](const auto& of) {
                           return test::device_name(std::get<0>(of.param)) +
                                  (std::get<1>(of.param) ? "_tree" : "_noise");
                         });

// The mean's gradients, of which each loss alone knows the choices, by central differences in float.
TEST_P(ChoiceLossRule, GradientsAreThoseOfTheMean) {
  Head head(device());
  const Loss loss = head.loss(by_tree());
  EXPECT_EQ(loss.rows.shape(), (Shape{kSteps, kRows}));
  EXPECT_EQ(read<std::int32_t>(loss.count)[0], kSteps * kRows - 1);
  EXPECT_EQ(read<float>(loss.rows.value())[4], 0);
  EXPECT_TRUE(head.tape.unreached_parameters().empty());
  const auto differences = [&](const Var& of, const Tensor& gradient) {
    const auto got = read<float>(gradient), values = read<float>(of.value());
    for (std::size_t i = 0; i < got.size(); ++i) {
      constexpr float kStep = 0.03F;
      const auto mean = [&](float by) {
        Head moved(device(), Head::Table::constant, /*recording=*/false);
        auto changed = values;
        changed[i] += by;
        copy_from_host(
            of.shape() == head.hidden.shape() ? moved.hidden.value() : moved.weight.value(),
            changed.data());
        return static_cast<double>(read<float>(moved.loss(by_tree()).mean.value())[0]);
      };
      EXPECT_NEAR(got[i], (mean(kStep) - mean(-kStep)) / (2 * kStep), 2e-4) << i;
    }
  };
  differences(head.hidden, head.hidden.d());
  differences(head.weight, head.d_weight);
}

TEST_P(ChoiceLossRule, ARowSparseTableHasTheRowsOfADenseOne) {
  Head dense(device()), sparse(device(), Head::Table::row_sparse);
  dense.loss(by_tree());
  sparse.loss(by_tree());
  EXPECT_EQ(read<float>(sparse.hidden.d()), read<float>(dense.hidden.d()));
  const auto want = read<float>(dense.d_weight), got = read<float>(sparse.rows.values);
  std::vector<float> all(want.size(), 0.0F);
  const auto rows = read<std::int32_t>(sparse.rows.row);
  const std::int32_t count = read<std::int32_t>(sparse.rows.count)[0];
  EXPECT_GT(count, 5);
  for (std::int32_t r = 0; r < count; ++r) {
    const auto from = got.begin() + r * kWidth;
    std::copy(from, from + kWidth, all.begin() + rows[static_cast<std::size_t>(r)] * kWidth);
  }
  EXPECT_EQ(all, want);
}

TEST_P(ChoiceLossRule, GradientsOfTheSumAreTheMeansTimesTheCount) {
  Head mean(device()), sum(device());
  const Loss first = mean.loss(by_tree());
  const Loss second = sum.loss(by_tree(), {.gradients_of_sum = true});
  EXPECT_EQ(read<float>(first.mean.value()), read<float>(second.mean.value()));
  for (const auto& [got, of] :
       {std::pair(sum.hidden.d(), mean.hidden.d()), std::pair(sum.d_weight, mean.d_weight)}) {
    auto want = read<float>(of);
    for (float& d : want) d *= static_cast<float>(kSteps * kRows - 1);
    EXPECT_TRUE(test::close(read<float>(got), want, Tolerance{.absolute = 1e-6, .relative = 1e-6}));
  }
}

TEST_P(ChoiceLossRule, TakesADenominatorAndIsNamed) {
  Head plain(device()), divided(device());
  plain.loss(by_tree());
  const auto denominator = test::tensor_of<float>(device(), {1}, {4 * (kSteps * kRows - 1.0F)});
  divided.loss(by_tree(), {.denominator = denominator, .term_weight = 4});
  EXPECT_TRUE(test::close(read<float>(divided.d_weight), read<float>(plain.d_weight),
                          Tolerance{.absolute = 1e-7, .relative = 1e-6}));
  const auto labelled = plain.tape.labelled();
  ASSERT_EQ(labelled.size(), 2U);
  EXPECT_EQ(labelled[0].label.text(), "loss per target");
  EXPECT_EQ(labelled[1].label.text(), "mean loss");
}

}  // namespace
}  // namespace carousel
