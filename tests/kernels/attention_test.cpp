#include <omp.h>

#include "kernels/common/check.h"
#include "tests/kernels/attention_sweep.h"

namespace carousel {
namespace {

using test::AttentionCase;
using test::AttentionProblem;
using test::AttentionSolution;
using test::oracle;
using test::random_attention;
using test::solve;
using Values = std::vector<double>;

// Leg 1: worked by hand. One head of width 1 and scale 1. Query 0 sees key 0 alone. Query 1 has scores
// 0 and ln 3, so weights 1/4 and 3/4, and y = 1·8/4 + 3·4/4 = 5. With d_y = 1: d_weight = 8, 4 and
// delta = 5, so d_z = 3/4, −3/4.
TEST(Attention, TwoQueriesWorkedByHand) {
  const double log3 = std::log(3.0);
  const AttentionProblem p{.queries = 2,
                           .keys = 2,
                           .rule = {.head_width = 1, .causal = true, .scale = 1},
                           .q = {5, 1},
                           .k = {0, log3},
                           .v = {8, 4},
                           .d_y = {1, 1}};
  for (const Device& device : test::devices()) {
    const AttentionSolution got = solve<float>(device, p, true);
    constexpr Tolerance kClose{.absolute = 1e-5};
    EXPECT_TRUE(test::close(got.y, Values{8, 5}, kClose));
    EXPECT_TRUE(test::close(got.lse, Values{0, std::log(4.0)}, kClose));
    EXPECT_TRUE(test::close(got.weights, Values{1, 0, 0.25, 0.75}, kClose));
    EXPECT_TRUE(test::close(got.d_q, Values{0, -0.75 * log3}, kClose));
    EXPECT_TRUE(test::close(got.d_k, Values{0.75, -0.75}, kClose));
    EXPECT_TRUE(test::close(got.d_v, Values{1.25, 0.75}, kClose));
  }
}

// Leg 2: of the loss Σ d_y ∘ y, in every input.
TEST(Attention, BackwardAgreesWithCentralDifferencesInDouble) {
  for (const auto& [causal, bias_heads] : {std::pair{false, 0U}, {true, 0U}, {false, 4U}}) {
    AttentionProblem p{.queries = 5,
                       .keys = 6,
                       .batch = 2,
                       .rule = {.heads = 4, .kv_heads = 2, .head_width = 3, .causal = causal},
                       .bias_heads = bias_heads};
    p.drop_probability = causal ? 0.3F : 0.0F;
    p = random_attention<double>(p);
    p.length = {6, 4};
    const auto loss = [](const AttentionProblem& at) {
      const Values y = solve<double>(Cpu{}, at).y;
      double sum = 0;
      for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * at.d_y[i];
      return sum;
    };
    const AttentionSolution got = solve<double>(Cpu{}, p);
    const auto expect = [&](Values AttentionProblem::*input, const Values& gradient) {
      constexpr double kStep = 1e-5;
      Values want;
      for (std::size_t i = 0; i < gradient.size(); ++i) {
        AttentionProblem up = p, down = p;
        (up.*input)[i] += kStep;
        (down.*input)[i] -= kStep;
        want.push_back((loss(up) - loss(down)) / (2 * kStep));
      }
      EXPECT_TRUE(test::close(gradient, want, {.absolute = 1e-8, .relative = 1e-7}));
    };
    expect(&AttentionProblem::q, got.d_q);
    expect(&AttentionProblem::k, got.d_k);
    expect(&AttentionProblem::v, got.d_v);
  }
}

// Leg 3. Steps around a warp's rows, a panel and the tiles of both devices; widths around a vector and
// where CUDA takes other tiles; every rule alone and some together.
const std::vector<AttentionCase> kCases{
    {0, 3, 2, {.head_width = 4}},
    {3, 0, 2, {.head_width = 4}},
    {3, 3, 0, {.head_width = 4}},
    {1, 1, 1, {.head_width = 1}},
    {1, 130, 3, {.heads = 2, .head_width = 5}, true},
    {7, 9, 3, {.heads = 4, .kv_heads = 2, .head_width = 15}, true},
    {15, 16, 3, {.heads = 4, .kv_heads = 2, .head_width = 60, .causal = true, .window = 9}, true},
    {16, 32, 1, {.heads = 2, .head_width = 16}},
    {17, 33, 4, {.heads = 3, .kv_heads = 1, .head_width = 17, .causal = true}, true, 0.25F},
    {33, 20, 2, {.heads = 2, .head_width = 31, .causal = true, .scale = 0.5F}},
    {64, 64, 2, {.heads = 2, .head_width = 32, .causal = true}},
    {65, 65, 2, {.heads = 2, .head_width = 64, .causal = true, .window = 20}},
    {66, 130, 1, {.heads = 1, .head_width = 65}, false, 0.5F},
    {140, 140, 1, {.heads = 1, .head_width = 64, .causal = true, .window = 1}},
    {150,
     150,
     2,
     {.heads = 2, .kv_heads = 1, .head_width = 20, .causal = true, .window = 70},
     true},
    {70, 40, 1, {.heads = 1, .head_width = 128}, false, 0.1F},
    {40, 70, 1, {.heads = 2, .head_width = 129, .causal = true}},
    {36, 36, 1, {.heads = 1, .head_width = 256}},
    {100, 200, 1, {.heads = 1, .head_width = 64}},
};

template <class T>
void sweep() {
  const test::WorstOfAttention worst = test::sweep_attention<T>(kCases);
  test::expect_recorded(worst.forward, test::of<T>(kAttentionForwardTolerance));
  test::expect_recorded(worst.backward, test::of<T>(kAttentionBackwardTolerance));
}

TEST(Attention, SweepInFloatStaysWithinItsTolerances) { sweep<float>(); }
TEST(Attention, SweepInBf16StaysWithinItsTolerances) { sweep<bf16>(); }

TEST(Attention, GivesItsWeightsOnRequest) {
  for (const std::size_t bias_heads : {0, 2}) {
    const AttentionProblem p = random_attention<float>(
        {.queries = 40,
         .keys = 40,
         .batch = 3,
         .rule = {.heads = 2, .kv_heads = 1, .head_width = 9, .causal = true, .window = 33},
         .bias_heads = bias_heads},
        true);
    const Values want = oracle(p).weights;
    for (const Device& device : test::devices()) {
      const AttentionSolution got = solve<float>(device, p, true);
      EXPECT_TRUE(test::close(got.weights, want, kAttentionForwardTolerance.f32));
    }
  }
}

TEST(Attention, ProductsInTf32RoundTheirFactorsAlone) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  AttentionProblem p =
      random_attention<float>({.queries = 40, .keys = 50, .rule = {.head_width = 40}});
  const Values exact = solve<float>(*test::cuda_device(), p).y;
  p.tf32 = true;
  const Values rounded = solve<float>(*test::cuda_device(), p).y;
  EXPECT_NE(exact, rounded);
  EXPECT_TRUE(test::close(rounded, exact, {.absolute = 2e-3}));
}

// Leg 5: invariants.
TEST(Attention, GivesTheSameBitsForEveryNumberOfThreads) {
  const int threads = omp_get_max_threads();
  for (const std::size_t bias_heads : {0, 4}) {
    const AttentionProblem p = random_attention<float>(
        {.queries = 150,
         .keys = 150,
         .batch = 2,
         .rule = {.heads = 4, .kv_heads = 2, .head_width = 24, .causal = true},
         .bias_heads = bias_heads});
    omp_set_num_threads(1);
    const AttentionSolution want = solve<float>(Cpu{}, p);
    omp_set_num_threads(3);
    const AttentionSolution got = solve<float>(Cpu{}, p);
    omp_set_num_threads(threads);
    EXPECT_EQ(got.y, want.y);
    EXPECT_EQ(got.lse, want.lse);
    EXPECT_EQ(got.d_q, want.d_q);
    EXPECT_EQ(got.d_k, want.d_k);
    EXPECT_EQ(got.d_v, want.d_v);
  }
}

TEST(Attention, EqualKeysGiveTheMeanOfTheValuesAndNoGradientToQueries) {
  for (const Device& device : test::devices()) {
    AttentionProblem p = random_attention<float>(
        {.queries = 20, .keys = 20, .rule = {.head_width = 8, .causal = true}});
    for (std::size_t i = 0; i < p.k.size(); ++i) p.k[i] = p.k[i % 8];
    const AttentionSolution got = solve<float>(device, p);
    Values mean(p.v.size());
    for (std::size_t t = 0; t < 20; ++t) {
      for (std::size_t s = 0; s <= t; ++s) {
        for (std::size_t d = 0; d < 8; ++d) {
          mean[t * 8 + d] += p.v[s * 8 + d] / static_cast<double>(t + 1);
        }
      }
    }
    EXPECT_TRUE(test::close(got.y, mean, {.absolute = 1e-6}));
    EXPECT_TRUE(test::close(got.d_q, Values(got.d_q.size()), {.absolute = 1e-6}));
  }
}

TEST(Attention, AConstantAddedToAllScoresChangesNothing) {
  for (const Device& device : test::devices()) {
    // An additional dimension adds 50 to every score: far beyond what exp can take by itself.
    AttentionProblem p =
        random_attention<float>({.queries = 70, .keys = 70, .rule = {.head_width = 8, .scale = 1}});
    for (std::size_t i = 7; i < p.k.size(); i += 8) p.q[i] = p.v[i] = p.d_y[i] = 0, p.k[i] = 1;
    AttentionProblem shifted = p;
    for (std::size_t i = 7; i < p.q.size(); i += 8) shifted.q[i] = 1000;
    const AttentionSolution want = solve<float>(device, p), got = solve<float>(device, shifted);
    EXPECT_TRUE(test::close(got.y, want.y, {.absolute = 2e-4}));
    EXPECT_TRUE(test::close(got.d_v, want.d_v, {.absolute = 2e-3}));
  }
}

TEST(Attention, ANaNThatAQuerySeesMakesItNaN) {
  for (const Device& device : test::devices()) {
    for (Values AttentionProblem::*input :
         {&AttentionProblem::q, &AttentionProblem::k, &AttentionProblem::v}) {
      AttentionProblem p = random_attention<float>(
          {.queries = 40, .keys = 40, .batch = 2, .rule = {.heads = 2, .head_width = 4}});
      (p.*input)[0] = NAN;  // step 0, row 0, head 0
      const Values y = solve<float>(device, p).y;
      EXPECT_TRUE(std::isnan(y[0]));
      EXPECT_EQ(std::isnan(y[39 * 16]), input != &AttentionProblem::q);
      for (std::size_t i = 0; i < y.size(); ++i) {
        EXPECT_FALSE(i % 16 >= 4 && std::isnan(y[i])) << "another row or head, " << i;
      }
    }
  }
}

// Leg 4: the contract on bad input.
TEST(Attention, RefusesWhatItsContractRefuses) {
  const test::Buffer<float> numbers(Cpu{}, 1000);
  const test::Buffer<std::int32_t> lengths(Cpu{}, 10);
  struct Bad {
    AttentionRule rule{.heads = 4, .kv_heads = 2, .head_width = 3};
    std::int64_t q_columns = 12, first = 0, k_columns = 6, k_batch = 2, v_steps = 5, y_steps = 4,
                 lse = 4, length = 2;
    float drop = 0;
  };
  const auto check = [&](const Bad& c) {
    float* const data = numbers.view(1000).data;
    const HeadRows<float> q{{data, {4, 2, c.q_columns}}, c.first},
        k{{data, {5, c.k_batch, c.k_columns}}}, v{{data, {c.v_steps, 2, 6}}},
        y{{data, {c.y_steps, 2, 12}}};
    const View<std::int32_t, 1> length{lengths.view(10).data, {c.length}};
    const std::int64_t step = 0;
    const RandomSource random{.step = {&step, {1}}};
    AttentionForward<float>{.q = q,
                            .k = k,
                            .v = v,
                            .rule = c.rule,
                            .length = length,
                            .drop_probability = c.drop,
                            .random = random,
                            .y = y,
                            .lse = {data, {2, 4, c.lse}}}
        .check();
    AttentionBackward<float>{.q = q,
                             .k = k,
                             .v = v,
                             .rule = c.rule,
                             .length = length,
                             .drop_probability = c.drop,
                             .random = random,
                             .y = y,
                             .lse = {data, {2, 4, c.lse}},
                             .d_y = y,
                             .d_q = {q},
                             .d_k = {k},
                             .d_v = {v}}
        .check();
  };
  EXPECT_NO_THROW(check({}));
  for (const Bad& bad :
       {Bad{.q_columns = 11}, Bad{.first = 1}, Bad{.first = -1}, Bad{.k_columns = 5},
        Bad{.k_batch = 1}, Bad{.v_steps = 4}, Bad{.y_steps = 3}, Bad{.lse = 3}, Bad{.length = 3},
        Bad{.rule = {.heads = 4, .kv_heads = 2}},
        Bad{.rule = {.heads = 1, .head_width = 257}, .q_columns = 257, .k_columns = 257}}) {
    EXPECT_THROW(check(bad), ShapeError);
  }
  for (const Bad& bad : {Bad{.rule = {.heads = 0, .head_width = 3}},
                         Bad{.rule = {.heads = 4, .kv_heads = 3, .head_width = 3}},
                         Bad{.rule = {.heads = 4, .kv_heads = -1, .head_width = 3}},
                         Bad{.rule = {.heads = 4, .kv_heads = 2, .head_width = 3, .window = 2}},
                         Bad{.rule = {.heads = 4, .kv_heads = 2, .head_width = 3, .scale = NAN}},
                         Bad{.drop = 1}, Bad{.drop = -0.5F}, Bad{.drop = NAN}}) {
    EXPECT_THROW(check(bad), ConfigError);
  }
}

}  // namespace
}  // namespace carousel
