#include "kernels/hierarchical_softmax/hierarchical_softmax.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/binary_choices.h"
#include "tests/reference/hierarchical_softmax.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::Buffer;
using Ids = std::vector<std::int32_t>;
using Counts = std::vector<std::int64_t>;

struct Solution {
  Ids choice, answer;
  bool operator==(const Solution&) const = default;
};

Solution solve(const Device& device, const HuffmanTree& tree, const Ids& targets,
               std::size_t depth) {
  const std::size_t N = targets.size(), P = tree.node.size();
  const Buffer<std::int32_t> target(device, targets), start(device, tree.start),
      node(device, tree.node), turn(device, tree.turn), choice(device, N * depth),
      answer(device, N * depth);
  run(device, HierarchicalSoftmax{.target = target.view(N),
                                  .start = start.view(tree.start.size()),
                                  .node = node.view(P),
                                  .turn = turn.view(P),
                                  .choice = choice.view(N, depth),
                                  .answer = answer.view(N, depth)});
  return {choice.read(), answer.read()};
}

Counts random_counts(std::size_t words, unsigned seed) {
  std::mt19937 random(seed);
  Counts counts(words);
  for (std::int64_t& c : counts) {
    c = static_cast<std::int64_t>(std::exp(12.0 * static_cast<double>(random()) / 4294967296.0)) -
        1;
  }
  return counts;
}

// Leg 1: by hand. 1 and 2 are joined to node 0, of 3; with the other 3 that is node 1, of 6, then the
// root.
TEST(HierarchicalSoftmax, PathsByHand) {
  const HuffmanTree tree(Counts{9, 1, 3, 2});
  EXPECT_EQ(tree.start, (Ids{0, 1, 4, 6, 9}));
  EXPECT_EQ(tree.node, (Ids{2, 2, 1, 0, 2, 1, 2, 1, 0}));
  EXPECT_EQ(tree.turn, (Ids{1, 0, 1, 0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(tree.depth, 3);
  for (const Device& device : test::devices()) {
    const Solution got = solve(device, tree, {3, 0, -1, 9}, 4);
    EXPECT_EQ(got.choice, (Ids{2, 1, 0, kNoToken, 2, kNoToken, kNoToken, kNoToken, kNoToken,
                               kNoToken, kNoToken, kNoToken, -1, kNoToken, kNoToken, kNoToken}));
    EXPECT_EQ(got.answer, (Ids{0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  }
}

// Leg 2, of an op without gradients: the tree is the best there is, and every node has two branches.
TEST(HuffmanTree, NoTreeHasShorterPaths) {
  for (const std::size_t words : {2U, 3U, 10U, 257U, 5000U}) {
    const Counts counts = random_counts(words, static_cast<unsigned>(words));
    const HuffmanTree tree(counts);
    std::int64_t cost = 0, longest = 0;
    std::map<std::pair<std::int32_t, std::int32_t>, std::int32_t> branches;
    for (std::size_t v = 0; v < words; ++v) {
      const auto path =
          reference::path(tree.start, tree.node, tree.turn, static_cast<std::int32_t>(v));
      cost += counts[v] * std::ssize(path);
      longest = std::max(longest, std::ssize(path));
      for (std::size_t i = 0; i < path.size(); ++i) {
        // A branch leads to one node, or to one word.
        const auto to = i + 1 < path.size() ? path[i + 1].first : -1 - static_cast<std::int32_t>(v);
        EXPECT_EQ(branches.emplace(path[i], to).first->second, to);
      }
    }
    EXPECT_EQ(cost, reference::huffman_cost(counts));
    EXPECT_EQ(tree.depth, longest);
    EXPECT_EQ(branches.size(), 2 * (words - 1));
  }
}

TEST(HuffmanTree, WordsThatNeverOccurDoNotMakeItDeep) {
  EXPECT_LE(HuffmanTree(Counts(1000, 0)).depth, 10);
  EXPECT_LE(HuffmanTree(Counts(1000, 5)).depth, 10);
}

TEST(HuffmanTree, RefusesWhatMakesNoTree) {
  for (const Counts& bad : {Counts{}, Counts{3}, Counts{3, -1}}) {
    EXPECT_THROW(HuffmanTree{bad}, ConfigError);
  }
}

// Leg 3: every device against the oracle, also with paths that are cut off.
TEST(HierarchicalSoftmax, SweepEqualsTheOracle) {
  for (const std::size_t words : {2U, 40U, 3000U}) {
    const HuffmanTree tree(random_counts(words, 3));
    for (const std::size_t rows : {0U, 1U, 33U, 300U}) {
      std::mt19937 random(static_cast<unsigned>(rows));
      Ids targets(rows);
      for (auto& t : targets) t = static_cast<std::int32_t>(random() % (words + 1)) - 1;
      for (const std::size_t depth : {std::size_t{1}, static_cast<std::size_t>(tree.depth) + 2}) {
        Solution want;
        for (const std::int32_t t : targets) {
          const auto path =
              t < 0 ? reference::Path{} : reference::path(tree.start, tree.node, tree.turn, t);
          for (std::size_t c = 0; c < depth; ++c) {
            want.choice.push_back(c < path.size() ? path[c].first : kNoToken);
            want.answer.push_back(c < path.size() ? path[c].second : 0);
          }
        }
        for (const Device& device : test::devices()) {
          EXPECT_TRUE(solve(device, tree, targets, depth) == want);
        }
      }
    }
  }
}

// Leg 4: the contract on bad input.
TEST(HierarchicalSoftmax, RefusesWhatItsContractRefuses) {
  Ids ids(40);
  std::int32_t* const i = ids.data();
  const HierarchicalSoftmax good{.target = {i, {6}},
                                 .start = {i, {5}},
                                 .node = {i, {9}},
                                 .turn = {i, {9}},
                                 .choice = {i, {6, 3}},
                                 .answer = {i, {6, 3}}};
  EXPECT_NO_THROW(good.check());
  const auto refused = [&](const auto& change) {
    HierarchicalSoftmax bad = good;
    change(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refused([](auto& op) { op.start.extent = {0}; });
  refused([](auto& op) { op.turn.extent = {8}; });
  refused([](auto& op) { op.choice.extent = {5, 3}; });
  refused([](auto& op) { op.choice.extent = op.answer.extent = {6, 0}; });
  refused([](auto& op) { op.answer.extent = {6, 2}; });
}

// Leg 5: the probabilities of all words add up to 1, whatever the logits of the nodes are.
TEST(HierarchicalSoftmax, ProbabilitiesOfAllWordsAddUpToOne) {
  const std::size_t words = 300;
  const HuffmanTree tree(random_counts(words, 5));
  std::mt19937 random(6);
  std::vector<double> logits(words - 1);
  for (double& x : logits) x = 6 * static_cast<double>(random()) / 4294967296.0 - 3;
  Ids all(words);
  for (std::size_t v = 0; v < words; ++v) all[v] = static_cast<std::int32_t>(v);
  const auto depth = static_cast<std::size_t>(tree.depth);
  for (const Device& device : test::devices()) {
    const Solution paths = solve(device, tree, all, depth);
    double sum = 0;
    for (std::size_t v = 0; v < words; ++v) {
      double nats = 0;
      for (std::size_t i = v * depth; i < (v + 1) * depth && paths.choice[i] != kNoToken; ++i) {
        const double logit = logits[static_cast<std::size_t>(paths.choice[i])];
        nats += reference::decide(logit, paths.answer[i] != 0).loss;
      }
      sum += std::exp(-nats);
    }
    EXPECT_NEAR(sum, 1, 1e-12);
  }
}

}  // namespace
}  // namespace carousel
