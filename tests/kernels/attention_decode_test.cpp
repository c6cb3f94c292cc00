#include "kernels/attention_decode/attention_decode.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "kernels/attention/attention.h"
#include "kernels/common/check.h"
#include "tests/reference/attention_decode.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::Buffer;
using Numbers = std::vector<double>;

/// Tokens of a batch that come in calls of some steps each, and what every call does.
struct Generation {
  std::size_t batch = 1, places = 1;
  AttentionRule rule{};
  std::vector<std::size_t> steps{};                 ///< of each call
  std::vector<std::vector<std::int32_t>> length{};  ///< of each call's rows; empty: all steps
  std::size_t stored = 0;                           ///< calls whose tokens are stored alone
  std::vector<Numbers> qkv{};                       ///< of each call, [T, B, (A + 2·Akv)·D]

  std::size_t width() const { return static_cast<std::size_t>(rule.head_width); }
  std::size_t heads() const { return static_cast<std::size_t>(rule.heads); }
  std::size_t groups() const { return static_cast<std::size_t>(rule.groups()); }
  std::size_t columns() const { return (heads() + 2 * groups()) * width(); }
  std::size_t added(std::size_t call, std::size_t b) const {
    if (length.empty()) return steps[call];
    return static_cast<std::size_t>(
        std::clamp<std::int64_t>(length[call][b], 0, static_cast<std::int64_t>(steps[call])));
  }
};

/// y of every call, [T, B, A·D]. The cache starts as NaN.
template <class T>
std::vector<Numbers> generate(const Device& device, const Generation& g) {
  const std::size_t stored_columns = g.groups() * g.width();
  const Buffer<T> cache_k(device, g.places * g.batch * stored_columns),
      cache_v(device, g.places * g.batch * stored_columns);
  std::vector<std::int64_t> before(g.batch, 0);
  std::vector<Numbers> result;
  for (std::size_t call = 0; call < g.steps.size(); ++call) {
    const std::size_t steps = g.steps[call];
    const Buffer<T> qkv(device, test::stored<T>(g.qkv[call])),
        y(device, steps * g.batch * g.heads() * g.width());
    const Buffer<std::int64_t> position(device, before);
    const Buffer<std::int32_t> length(
        device, g.length.empty() ? std::vector<std::int32_t>{} : g.length[call]);
    const auto part = [&](std::size_t heads) -> HeadRows<T> {
      return {qkv.view(steps, g.batch, g.columns()), static_cast<std::int64_t>(heads * g.width())};
    };
    AttentionDecode<T> decode{.q = part(0),
                              .k = part(g.heads()),
                              .v = part(g.heads() + g.groups()),
                              .cache_k = cache_k.view(g.places, g.batch, stored_columns),
                              .cache_v = cache_v.view(g.places, g.batch, stored_columns),
                              .position = position.view(g.batch),
                              .rule = g.rule,
                              .y = {y.view(steps, g.batch, g.heads() * g.width())}};
    AppendToCache<T> append{.k = decode.k,
                            .v = decode.v,
                            .width = static_cast<std::int64_t>(stored_columns),
                            .position = decode.position,
                            .cache_k = cache_k.view(g.places, g.batch, stored_columns),
                            .cache_v = cache_v.view(g.places, g.batch, stored_columns)};
    if (!g.length.empty()) decode.length = append.length = length.view(g.batch);
    const auto scratch = test::give_scratch(device, decode);
    if (call >= g.stored) run(device, decode);
    run(device, append);
    result.push_back(test::as_double(y.read()));
    for (std::size_t b = 0; b < g.batch; ++b) {
      before[b] += static_cast<std::int64_t>(g.added(call, b));
    }
  }
  return result;
}

std::vector<Numbers> oracle(const Generation& g) {
  const std::size_t D = g.width();
  const double scale =
      g.rule.scale != 0 ? static_cast<double>(g.rule.scale) : 1 / std::sqrt(static_cast<double>(D));
  const std::size_t window = static_cast<std::size_t>(g.rule.window);
  const std::size_t most = window > 0 ? std::min(window, g.places) : g.places;
  // The keys and values that each row and head has had.
  std::vector<std::vector<Numbers>> keys(g.batch * g.groups()), values(keys.size());
  std::vector<Numbers> result;
  for (std::size_t call = 0; call < g.steps.size(); ++call) {
    Numbers y(g.steps[call] * g.batch * g.heads() * D, 0);
    for (std::size_t t = 0; t < g.steps[call]; ++t) {
      for (std::size_t b = 0; b < g.batch; ++b) {
        if (t >= g.added(call, b)) continue;
        const auto head = [&](std::size_t index) {
          const auto first = g.qkv[call].begin() + static_cast<std::ptrdiff_t>(
                                                       (t * g.batch + b) * g.columns() + index * D);
          return Numbers(first, first + static_cast<std::ptrdiff_t>(D));
        };
        for (std::size_t group = 0; group < g.groups(); ++group) {
          keys[b * g.groups() + group].push_back(head(g.heads() + group));
          values[b * g.groups() + group].push_back(head(g.heads() + g.groups() + group));
        }
        for (std::size_t a = 0; a < g.heads(); ++a) {
          const std::size_t of = b * g.groups() + a / (g.heads() / g.groups());
          const Numbers row =
              reference::attend_to_newest(head(a), keys[of], values[of], most, scale);
          std::copy(
              row.begin(), row.end(),
              y.begin() + static_cast<std::ptrdiff_t>(((t * g.batch + b) * g.heads() + a) * D));
        }
      }
    }
    result.push_back(y);
  }
  return result;
}

/// Fills in random tokens; those beyond a row's length are NaN.
template <class T>
Generation random_generation(Generation g) {
  std::mt19937 engine(static_cast<unsigned>(g.places * 31 + g.columns()));
  std::uniform_real_distribution<double> number(-1, 1);
  for (std::size_t call = 0; call < g.steps.size(); ++call) {
    Numbers values(g.steps[call] * g.batch * g.columns());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t row = i / g.columns();
      values[i] = row / g.batch < g.added(call, row % g.batch) ? number(engine) : NAN;
    }
    g.qkv.push_back(test::as_double(test::stored<T>(values)));
  }
  return g;
}

// Leg 1: by hand. A ring of two places: the third token sees the second and itself, whose scores are 0
// and ln 3, so weights 1/4 and 3/4.
TEST(AttentionDecode, ARingOfTwoWorkedByHand) {
  const double log3 = std::log(3.0);
  const Generation g{.places = 2,
                     .rule = {.head_width = 1, .scale = 1},
                     .steps = {1, 1, 1},
                     .qkv = {{1, 9, 7}, {1, 0, 8}, {1, log3, 4}}};
  for (const Device& device : test::devices()) {
    const auto y = generate<float>(device, g);
    EXPECT_EQ(y[0], Numbers{7});
    EXPECT_TRUE(test::close(y[2], Numbers{5}, {.absolute = 1e-6}));
  }
}

// Leg 3. Caches around the lanes of the CPU and the parts of CUDA, rings that are full and not, prompts
// longer than the ring, rows that get no token.
const std::vector<Generation> kCases{
    {.places = 1, .rule = {.head_width = 1}, .steps = {1, 1}},
    {.batch = 3,
     .places = 5,
     .rule = {.heads = 4, .kv_heads = 2, .head_width = 3},
     .steps = {3, 1, 2, 4},
     .length = {{3, 1, 0}, {1, 1, 1}, {2, -1, 2}, {4, 4, 9}}},
    {.batch = 2, .places = 16, .rule = {.heads = 2, .head_width = 17}, .steps = {15, 1, 1, 1}},
    {.batch = 1, .places = 7, .rule = {.heads = 1, .head_width = 16}, .steps = {20, 1, 9}},
    {.batch = 2,
     .places = 40,
     .rule = {.heads = 2, .head_width = 33, .window = 6},
     .steps = {9, 1}},
    {.batch = 1,
     .places = 300,
     .rule = {.heads = 2, .kv_heads = 1, .head_width = 64},
     .steps = {257, 1, 5, 2},
     .stored = 1},
    {.batch = 1,
     .places = 600,
     .rule = {.heads = 1, .head_width = 256},
     .steps = {519, 2},
     .stored = 1},
    {.batch = 0, .places = 4, .rule = {.head_width = 8}, .steps = {2}},
    {.batch = 2, .places = 4, .rule = {.head_width = 8}, .steps = {0, 1}},
};

template <class T>
void sweep() {
  for (const Device& device : test::devices()) {
    for (const Generation& c : kCases) {
      SCOPED_TRACE(test::device_name(device) + ", " + std::to_string(c.places) + " places, width " +
                   std::to_string(c.width()));
      const Generation g = random_generation<T>(c);
      const auto got = generate<T>(device, g), want = oracle(g);
      for (std::size_t call = c.stored; call < want.size(); ++call) {
        EXPECT_TRUE(test::close(got[call], want[call], test::of<T>(kAttentionForwardTolerance)))
            << "call " << call;
      }
    }
  }
}
TEST(AttentionDecode, EveryCallStaysWithinTheToleranceOfAttention) {
  sweep<float>();
  sweep<bf16>();
}

// Leg 5: invariants.
TEST(AttentionDecode, TokensAtOnceAreTokensOneByOne) {
  for (const Device& device : test::devices()) {
    Generation at_once = random_generation<float>(
        {.batch = 2, .places = 9, .rule = {.heads = 2, .head_width = 20}, .steps = {30}});
    Generation singly = at_once;
    singly.steps.assign(30, 1);
    singly.qkv.clear();
    const std::size_t row = at_once.batch * at_once.columns();
    for (std::size_t t = 0; t < 30; ++t) {
      const auto first = at_once.qkv[0].begin() + static_cast<std::ptrdiff_t>(t * row);
      singly.qkv.emplace_back(first, first + static_cast<std::ptrdiff_t>(row));
    }
    Numbers joined;
    for (const Numbers& y : generate<float>(device, singly)) {
      joined.insert(joined.end(), y.begin(), y.end());
    }
    EXPECT_EQ(generate<float>(device, at_once)[0], joined);
  }
}

TEST(AttentionDecode, GivesTheSameBitsForEveryNumberOfThreads) {
  const Generation g = random_generation<float>(
      {.batch = 2, .places = 300, .rule = {.heads = 4, .head_width = 40}, .steps = {200, 1, 1}});
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const auto want = generate<float>(Cpu{}, g);
  omp_set_num_threads(3);
  EXPECT_EQ(generate<float>(Cpu{}, g), want);
  omp_set_num_threads(threads);
}

TEST(AttentionDecode, InDoubleItIsTheOracle) {
  const Generation g = random_generation<double>(
      {.batch = 2, .places = 8, .rule = {.heads = 2, .head_width = 5}, .steps = {6, 1, 5}});
  const auto got = generate<double>(Cpu{}, g), want = oracle(g);
  for (std::size_t call = 0; call < want.size(); ++call) {
    EXPECT_TRUE(test::close(got[call], want[call], {.absolute = 1e-13}));
  }
}

// Leg 4: the contract on bad input.
TEST(AttentionDecode, RefusesWhatItsContractRefuses) {
  const Buffer<float> numbers(Cpu{}, 1000);
  const std::vector<std::int64_t> positions(4);
  const std::vector<std::int32_t> lengths(4);
  struct Bad {
    AttentionRule rule{.heads = 4, .kv_heads = 2, .head_width = 3};
    std::int64_t q_columns = 12, k_steps = 5, k_columns = 6, places = 3, cache_rows = 2,
                 cache_columns = 6, y_rows = 2, position = 2, length = 2;
  };
  float* const data = numbers.view(1000).data;
  const auto decode = [&](const Bad& c) {
    const View<const float, 3> cache{data, {c.places, c.cache_rows, c.cache_columns}};
    AttentionDecode<float>{.q = View<const float, 3>{data, {5, 2, c.q_columns}},
                           .k = View<const float, 3>{data, {c.k_steps, 2, c.k_columns}},
                           .v = View<const float, 3>{data, {c.k_steps, 2, c.k_columns}},
                           .cache_k = cache,
                           .cache_v = cache,
                           .position = {positions.data(), {c.position}},
                           .length = {lengths.data(), {c.length}},
                           .rule = c.rule,
                           .y = View<float, 3>{data, {5, c.y_rows, 12}}}
        .check();
  };
  const auto append = [&](const Bad& c) {
    const View<float, 3> cache{data, {c.places, c.cache_rows, c.cache_columns}};
    AppendToCache<float>{.k = View<const float, 3>{data, {5, 2, c.k_columns}},
                         .v = View<const float, 3>{data, {5, 2, 6}},
                         .width = 6,
                         .position = {positions.data(), {c.position}},
                         .length = {lengths.data(), {c.length}},
                         .cache_k = cache,
                         .cache_v = cache}
        .check();
  };
  EXPECT_NO_THROW(decode({}));
  EXPECT_NO_THROW(append({}));
  for (const Bad& bad : {Bad{.k_columns = 5}, Bad{.places = 0}, Bad{.cache_rows = 3},
                         Bad{.cache_columns = 7}, Bad{.position = 1}, Bad{.length = 3}}) {
    EXPECT_THROW(decode(bad), ShapeError);
    EXPECT_THROW(append(bad), ShapeError);
  }
  for (const Bad& bad : {Bad{.q_columns = 11}, Bad{.k_steps = 4}, Bad{.y_rows = 3}}) {
    EXPECT_THROW(decode(bad), ShapeError);
  }
  EXPECT_THROW(decode({.rule = {.heads = 4, .kv_heads = 3, .head_width = 3}}), ConfigError);
  EXPECT_THROW(decode({.rule = {.heads = 4, .kv_heads = 2, .head_width = 3, .window = -1}}),
               ConfigError);
}

}  // namespace
}  // namespace carousel
