// Attention with a bias of its scores.
#include <cmath>
#include <string>

#include "kernels/common/check.h"
#include "tests/kernels/attention_sweep.h"

namespace carousel {
namespace {

using test::AttentionProblem;
using test::AttentionSolution;
using test::random_attention;
using test::solve;
using Values = std::vector<double>;

// One head of width 1 and scale 2, which does not scale the bias. Query 0 looks at key 0 alone. Query 1
// has scores 0 + ln 9 and ln 3 + 0, so weights 3/4 and 1/4, and y = 8·3/4 + 4/4 = 7. With d_y = 1:
// d_weight = 8, 4 and delta = 7, so d_z = 3/4, −3/4.
TEST(AttentionBias, TwoQueriesWorkedByHand) {
  const double log3 = std::log(3.0);
  AttentionProblem p{.queries = 2,
                     .keys = 2,
                     .rule = {.head_width = 1, .scale = 2},
                     .q = {5, 1},
                     .k = {0, log3 / 2},
                     .v = {8, 4},
                     .d_y = {1, 1}};
  p.bias_heads = 1, p.bias = {0, -INFINITY, 2 * log3, 0};
  for (const Device& device : test::devices()) {
    const AttentionSolution got = solve<float>(device, p, true);
    constexpr Tolerance kClose{.absolute = 1e-5};
    EXPECT_TRUE(test::close(got.y, Values{8, 7}, kClose));
    EXPECT_TRUE(test::close(got.lse, Values{0, std::log(12.0)}, kClose));
    EXPECT_TRUE(test::close(got.weights, Values{1, 0, 0.75, 0.25}, kClose));
    EXPECT_TRUE(test::close(got.d_q, Values{0, -0.75 * log3}, kClose));
    EXPECT_TRUE(test::close(got.d_k, Values{1.5, -1.5}, kClose));
    EXPECT_TRUE(test::close(got.d_v, Values{1.75, 0.25}, kClose));
  }
}

// Every tile of CUDA, and every rule together with a bias of all heads or of each.
const std::vector<test::AttentionCase> kCases{
    {1, 1, 1, {.head_width = 1}, false, 0, 1},
    {7, 9, 3, {.heads = 4, .kv_heads = 2, .head_width = 15}, true, 0, 4},
    {15, 16, 2, {.heads = 2, .head_width = 60, .causal = true, .window = 9}, true, 0.5F, 1},
    {17, 33, 3, {.heads = 2, .kv_heads = 1, .head_width = 17, .causal = true}, true, 0.125F, 2},
    {33, 30, 2, {.heads = 2, .head_width = 31, .causal = true, .scale = -0.25F}, false, 0, 2},
    {3, 140, 2, {.heads = 2, .head_width = 4}, false, 0.25F, 2},
    {20, 67, 1, {.heads = 1, .head_width = 65}, false, 0.25F, 1},
    {40,
     70,
     1,
     {.heads = 2, .kv_heads = 1, .head_width = 20, .causal = true, .window = 30},
     true,
     0,
     2},
    {18, 40, 1, {.heads = 1, .head_width = 129}, false, 0, 1},
};

// The sweep without a bias records the worst error: here is none above it.
template <class T>
void sweep() {
  const test::WorstOfAttention worst = test::sweep_attention<T>(kCases);
  const auto most = [](const Tolerances& of) {
    return test::has_gpu() ? 1 : test::of<T>(of).worst;
  };
  EXPECT_LE(worst.forward, most(kAttentionForwardTolerance));
  EXPECT_LE(worst.backward, most(kAttentionBackwardTolerance));
}

TEST(AttentionBias, SweepInFloatStaysWithinItsTolerances) { sweep<float>(); }
TEST(AttentionBias, SweepInBf16StaysWithinItsTolerances) { sweep<bf16>(); }

TEST(AttentionBias, QueriesThatMustNotLookAnywhereGiveNothing) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    AttentionProblem p =
        random_attention<T>({.queries = 20,
                             .keys = 37,
                             .batch = 2,
                             .rule = {.heads = 2, .head_width = 8, .causal = true, .window = 12},
                             .bias_heads = 2});
    std::fill(p.bias.begin(), p.bias.end(), -INFINITY);
    const AttentionSolution got = solve<T>(device, p, true);
    for (const Values* zeros : {&got.y, &got.d_q, &got.d_k, &got.d_v, &got.weights}) {
      EXPECT_EQ(*zeros, Values(zeros->size()));
    }
    EXPECT_EQ(got.lse, Values(got.lse.size(), -INFINITY));
  });
}

TEST(AttentionBias, MasksAsTheRuleAndTheLengthsDo) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    AttentionProblem ruled = random_attention<T>(
        {.queries = 35,
         .keys = 30,
         .batch = 1,
         .rule = {.heads = 2, .kv_heads = 1, .head_width = 9, .causal = true, .window = 11}});
    ruled.length = {26};
    AttentionProblem masked = ruled;
    masked.length.clear(), masked.rule.causal = false, masked.rule.window = 0;
    masked.bias_heads = 1;
    for (std::size_t i = 0; i < ruled.queries * ruled.keys; ++i) {
      masked.bias.push_back(test::sees(ruled, 0, i / ruled.keys, i % ruled.keys) ? 0 : -INFINITY);
    }
    const AttentionSolution want = solve<T>(device, ruled, true),
                            got = solve<T>(device, masked, true);
    const Tolerance &forward = test::of<T>(kAttentionForwardTolerance),
                    &backward = test::of<T>(kAttentionBackwardTolerance);
    EXPECT_TRUE(test::close(got.y, want.y, forward));
    EXPECT_TRUE(test::close(got.weights, want.weights, kAttentionForwardTolerance.f32));
    EXPECT_TRUE(test::close(got.d_q, want.d_q, backward));
    EXPECT_TRUE(test::close(got.d_k, want.d_k, backward));
    EXPECT_TRUE(test::close(got.d_v, want.d_v, backward));
  });
}

TEST(AttentionBias, NaNAndInfinityMakeTheirQueryNaN) {
  for (const Device& device : test::devices()) {
    for (const double wrong : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
      AttentionProblem p = random_attention<float>({.queries = 20,
                                                    .keys = 40,
                                                    .batch = 2,
                                                    .rule = {.heads = 2, .head_width = 4},
                                                    .bias_heads = 2});
      constexpr std::size_t kQuery = 7, kHead = 1;
      p.bias[(kHead * p.queries + kQuery) * p.keys + 33] = wrong;
      const AttentionSolution got = solve<float>(device, p, true);
      for (std::size_t i = 0; i < got.y.size(); ++i) {
        const bool own = i / 16 == kQuery && i % 8 / 4 == kHead;
        EXPECT_EQ(std::isnan(got.y[i]), own) << i;
      }
      const std::size_t row = (kHead * p.queries + kQuery) * p.keys;
      EXPECT_TRUE(std::isnan(got.weights[row]));
      EXPECT_TRUE(std::isnan(got.d_q[kQuery * 16 + kHead * 4]));
    }
  }
}

std::string refusal(const std::array<std::int64_t, 3>& extent) {
  const test::Buffer<float> numbers(Cpu{}, 1000);
  float* const data = numbers.view(1000).data;
  const HeadRows<float> q{{data, {4, 2, 12}}}, k{{data, {5, 2, 12}}};
  const AttentionForward<float> op{.q = q,
                                   .k = k,
                                   .v = k,
                                   .rule = {.heads = 4, .head_width = 3},
                                   .bias = {data, extent},
                                   .y = q,
                                   .lse = {data, {2, 4, 4}}};
  const AttentionBackward<float> back{
      .q = q, .k = k, .v = k, .rule = op.rule, .bias = op.bias, .y = q, .lse = op.lse, .d_y = q};
  std::string text;
  try {
    op.check();
  } catch (const ShapeError& error) {
    text = error.what();
  }
  if (text.empty()) {
    EXPECT_NO_THROW(back.check());
  } else {
    EXPECT_THROW(back.check(), ShapeError);
  }
  return text;
}

TEST(AttentionBias, RefusesExtentsThatDisagree) {
  EXPECT_EQ(refusal({4, 4, 5}), "");
  EXPECT_EQ(refusal({1, 4, 5}), "");
  EXPECT_EQ(refusal({2, 4, 5}), "attention: bias is [2, 4, 5], expected [4, 4, 5] or [1, 4, 5]");
  EXPECT_NE(refusal({4, 3, 5}), "");
  EXPECT_NE(refusal({4, 4, 4}), "");
}

}  // namespace
}  // namespace carousel
