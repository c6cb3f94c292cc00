// The rules of attention: what flows on a tape, also against PyTorch's recordings (tests/golden).
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "engine/ops.h"
#include "kernels/additive_attention/additive_attention.h"
#include "kernels/attention/attention.h"
#include "kernels/common/check.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/golden.h"
#include "tests/support/tensors.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::as_double;
using test::close;
using test::Golden;

/// A leaf with a gradient of its own type.
struct Leaf {
  Tensor gradient;
  Var var;
  Leaf(Tape& tape, const Tensor& value)
      : gradient(tape.device(), value.shape(), value.dtype()),
        var(tape.parameter(value, gradient)) {}
};

/// −∞ where the recording hides the key.
Tensor recorded_bias(const Golden& golden, const Device& device) {
  const test::Recorded &bias = golden.given.at("bias"), &hidden = golden.given.at("hidden");
  std::vector<double> values = bias.values;
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (hidden.values[i] != 0) values[i] = -INFINITY;
  }
  Tensor result(device, bias.shape(), DType::f32);
  test::write(result, values);
  return result;
}

template <class T>
void expect_recorded(const Device& device, const std::string& name) {
  const Golden golden(name);
  Arena arena(device);
  Tape tape(arena, true);
  const auto leaf = [&](const char* input) {
    return Leaf(tape, golden.tensor(input, device, dtype_of<T>()));
  };
  const Leaf q = leaf("q"), k = leaf("k"), v = leaf("v");
  AttentionOptions options{.heads = golden.options.at("heads").get<std::int64_t>(),
                           .kv_heads = golden.options.at("kv_heads").get<std::int64_t>(),
                           .causal = golden.options.at("causal").get<bool>()};
  if (golden.given.contains("lengths")) {
    options.lengths = golden.tensor("lengths", device, DType::i32);
  }
  if (golden.given.contains("bias")) options.bias = recorded_bias(golden, device);
  const Var y = attention(q.var, k.var, v.var, options);
  EXPECT_TRUE(close(as_double(y.value()), golden.values.at("output").values,
                    test::of<T>(kAttentionForwardTolerance)));
  test::write(y.gradient().tensor, golden.given.at("d_output").values);
  tape.backward();
  const Tolerance& tolerance = test::of<T>(kAttentionBackwardTolerance);
  EXPECT_TRUE(close(as_double(q.gradient), golden.gradients.at("q").values, tolerance));
  EXPECT_TRUE(close(as_double(k.gradient), golden.gradients.at("k").values, tolerance));
  EXPECT_TRUE(close(as_double(v.gradient), golden.gradients.at("v").values, tolerance));
}

TEST(AttentionRules, GiveWhatPyTorchGives) {
  test::on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const char* name : {"attention", "attention_biased", "attention_biased_alike",
                             "attention_causal", "attention_masked", "attention_grouped"}) {
      SCOPED_TRACE(name);
      expect_recorded<T>(device, name);
    }
  });
}

// The rules between products, as the blocks of transformers have them, are torch.nn.MultiheadAttention,
// whose in_proj has the rows of queries, keys and values.
void expect_multihead(const Device& device, const std::string& name) {
  const Golden golden(name);
  const bool with_memory = golden.given.contains("memory");
  Arena arena(device);
  Tape tape(arena, true);
  std::map<std::string, Leaf> leaves;
  for (const auto& [input, recorded] : golden.given) {
    if (input == "d_output" || input == "lengths") continue;
    leaves.emplace(input, Leaf(tape, golden.tensor(input, device, DType::f32)));
  }
  const Leaf &weight = leaves.at("in_proj_weight"), &bias = leaves.at("in_proj_bias");
  const auto project = [&](const char* from, std::int64_t first, std::int64_t parts) {
    const auto rows = [&, part = bias.gradient.size() / 3](const Leaf& all) {
      return tape.parameter(all.var.value().slice(first * part, parts * part),
                            all.gradient.slice(first * part, parts * part));
    };
    return linear(leaves.at(from).var, rows(weight), rows(bias));
  };
  AttentionOptions options{.heads = golden.options.at("heads").get<std::int64_t>(),
                           .causal = !with_memory};
  Var y;
  Tensor weights;
  if (with_memory) {
    options.lengths = golden.tensor("lengths", device, DType::i32);
    const Var q = project("x", 0, 1), k = project("memory", 1, 1), v = project("memory", 2, 1);
    weights = attention_weights(q, k, options);
    y = attention(q, k, v, options);
  } else {
    const Var qkv = project("x", 0, 3);
    weights = self_attention_weights(qkv, options);
    y = self_attention(qkv, options);
  }
  const Var output = linear(y, leaves.at("out_proj.weight").var, leaves.at("out_proj.bias").var);
  constexpr Tolerance kTolerance{.absolute = 1e-5, .relative = 1e-5};
  EXPECT_TRUE(close(as_double(output.value()), golden.values.at("output").values, kTolerance));
  EXPECT_TRUE(close(as_double(weights), golden.values.at("weights").values, kTolerance));
  test::write(output.gradient().tensor, golden.given.at("d_output").values);
  tape.backward();
  EXPECT_EQ(leaves.size(), golden.gradients.size());
  for (const auto& [input, leaf] : leaves) {
    const std::vector<double>& want = golden.gradients.at(input).values;
    const double factor = test::to_unit(want);
    EXPECT_TRUE(close(test::scaled(as_double(leaf.gradient), factor), test::scaled(want, factor),
                      kTolerance))
        << input;
  }
}

TEST(AttentionRules, BetweenProductsAreMultiheadAttentionOfPyTorch) {
  for (const Device& device : test::devices()) {
    for (const char* name : {"multihead_attention", "multihead_attention_memory"}) {
      SCOPED_TRACE(name);
      expect_multihead(device, name);
    }
  }
}

std::vector<float> some_numbers(std::size_t count) {
  std::vector<float> values;
  for (std::size_t i = 0; i < count; ++i) {
    values.push_back(static_cast<float>((i * 37 + 11) % 64) / 32.0F - 1.0F);
  }
  return values;
}

const AttentionOptions kGrouped{.heads = 4, .kv_heads = 2, .causal = true};

TEST(AttentionRules, TakeQueriesKeysAndValuesThatLieSideBySide) {
  constexpr std::int64_t kSteps = 6, kBatch = 2, kWide = 12, kNarrow = 6,
                         kAll = kWide + 2 * kNarrow;
  const std::vector<float> all = some_numbers(kSteps * kBatch * kAll);
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const auto columns = [&](std::int64_t first, std::int64_t count) {
      std::vector<float> part;
      for (std::int64_t i = 0; i < kSteps * kBatch * kAll; ++i) {
        if (i % kAll >= first && i % kAll < first + count) {
          part.push_back(all[static_cast<std::size_t>(i)]);
        }
      }
      return Leaf(tape, test::tensor_of<float>(device, {kSteps, kBatch, count}, part));
    };
    const Leaf qkv(tape, test::tensor_of<float>(device, {kSteps, kBatch, kAll}, all)),
        q = columns(0, kWide), k = columns(kWide, kNarrow), v = columns(kWide + kNarrow, kNarrow);
    const Var one = self_attention(qkv.var, kGrouped),
              three = attention(q.var, k.var, v.var, kGrouped);
    EXPECT_EQ(host_floats(one.value()), host_floats(three.value()));
    test::sum(one);
    test::sum(three);
    tape.backward();
    const auto joined = host_floats(qkv.gradient), d_q = host_floats(q.gradient),
               d_k = host_floats(k.gradient), d_v = host_floats(v.gradient);
    for (std::size_t row = 0; row < kSteps * kBatch; ++row) {
      for (std::size_t c = 0; c < kAll; ++c) {
        const float want = c < kWide             ? d_q[row * kWide + c]
                           : c < kWide + kNarrow ? d_k[row * kNarrow + c - kWide]
                                                 : d_v[row * kNarrow + c - kWide - kNarrow];
        EXPECT_EQ(joined[row * kAll + c], want) << "row " << row << ", column " << c;
      }
    }
    EXPECT_EQ(tape.labelled().at(0).label.text(), "attention");
  }
}

TEST(AttentionRules, OneValueMayBeQueriesKeysAndValues) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor value = test::tensor_of<float>(device, {5, 1, 8}, some_numbers(40));
    const Leaf x(tape, value), q(tape, value), k(tape, value), v(tape, value);
    const AttentionOptions options{.heads = 2};
    test::sum(attention(x.var, x.var, x.var, options));
    test::sum(attention(q.var, k.var, v.var, options));
    tape.backward();
    const auto d_q = host_floats(q.gradient), d_k = host_floats(k.gradient),
               d_v = host_floats(v.gradient);
    std::vector<float> sum;
    for (std::size_t i = 0; i < d_q.size(); ++i) sum.push_back(d_q[i] + d_k[i] + d_v[i]);
    EXPECT_TRUE(close(host_floats(x.gradient), sum, kAttentionBackwardTolerance.f32));
  }
}

// As a composition of the rule with itself: one value in three places has the sum of their gradients.
TEST(AttentionRules, AdditiveScoresTakeOneValueAsQueriesKeysAndValues) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, true);
    const Tensor value = test::tensor_of<float>(device, {5, 1, 8}, some_numbers(40)),
                 lengths = test::tensor_of<std::int32_t>(device, {1}, {4});
    const Leaf x(tape, value), q(tape, value), k(tape, value), v(tape, value),
        score(tape, test::tensor_of<float>(device, {1, 8}, some_numbers(8))),
        other(tape, score.var.value());
    const AdditiveAttention one = additive_attention(x.var, x.var, x.var, score.var, lengths),
                            three = additive_attention(q.var, k.var, v.var, other.var, lengths);
    EXPECT_EQ(host_floats(one.y.value()), host_floats(three.y.value()));
    EXPECT_EQ(host_floats(one.weights), host_floats(three.weights));
    EXPECT_EQ(one.weights.shape(), (Shape{1, 5, 5}));
    // Of unequal gradients, for those of a sum are 0 where values are equal.
    test::write(one.y.gradient().tensor, std::vector<double>(as_double(value)));
    test::write(three.y.gradient().tensor, std::vector<double>(as_double(value)));
    tape.backward();
    const auto d_q = host_floats(q.gradient), d_k = host_floats(k.gradient),
               d_v = host_floats(v.gradient);
    std::vector<float> sum;
    for (std::size_t i = 0; i < d_q.size(); ++i) sum.push_back(d_q[i] + d_k[i] + d_v[i]);
    EXPECT_TRUE(close(host_floats(x.gradient), sum, kAdditiveAttentionBackwardTolerance.f32));
    EXPECT_EQ(host_floats(score.gradient), host_floats(other.gradient));
    EXPECT_NE(host_floats(score.gradient), std::vector<float>(8));
    EXPECT_EQ(tape.labelled().at(0).label.text(), "additive attention");
    EXPECT_THROW(additive_attention(x.var, x.var, score.var, score.var), ShapeError);
  }
}

TEST(AttentionRules, GiveWeightsThatSumToOne) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, false);
    const Var q = tape.constant(test::tensor_of<float>(device, {3, 1, 8}, some_numbers(24)));
    const Var k = tape.constant(test::tensor_of<float>(device, {5, 1, 8}, some_numbers(40)));
    std::vector<float> bias(15);
    bias[1] = -INFINITY;  // of query 0 and key 1, in both heads
    const Tensor weights =
        attention_weights(q, k,
                          {.heads = 2,
                           .bias = test::tensor_of<float>(device, {1, 3, 5}, bias),
                           .drop_probability = 0.5F});
    EXPECT_EQ(weights.shape(), (Shape{1, 2, 3, 5}));
    const std::vector<float> values = host_floats(weights);
    for (std::size_t row = 0; row < 6; ++row) {
      float sum = 0;
      for (std::size_t s = 0; s < 5; ++s) sum += values[row * 5 + s];
      EXPECT_NEAR(sum, 1, 1e-6);
    }
    EXPECT_EQ(values[1], 0);
    EXPECT_EQ(values[16], 0);
    EXPECT_GT(values[6], 0);
  }
}

TEST(AttentionRules, GiveTheWeightsOfPartsSideBySide) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, false);
    // Two heads of queries, one of keys and one of values, of width 4.
    const std::vector<float> all = some_numbers(std::size_t{3} * 2 * 16);
    std::vector<float> queries, keys;
    for (std::size_t row = 0; row < all.size(); row += 16) {
      const auto at = all.begin() + static_cast<std::ptrdiff_t>(row);
      queries.insert(queries.end(), at, at + 8);
      keys.insert(keys.end(), at + 8, at + 12);
    }
    const AttentionOptions options{.heads = 2, .kv_heads = 1, .causal = true};
    const Var q = tape.constant(test::tensor_of<float>(device, {3, 2, 8}, queries));
    const Var k = tape.constant(test::tensor_of<float>(device, {3, 2, 4}, keys));
    const Var qkv = tape.constant(test::tensor_of<float>(device, {3, 2, 16}, all));
    EXPECT_EQ(host_floats(self_attention_weights(qkv, options)),
              host_floats(attention_weights(q, k, options)));
  }
}

TEST(AttentionRules, ACacheGivesWhatTheWholeSequenceGives) {
  for (const Device& device : test::devices()) {
    Arena arena(device);
    Tape tape(arena, false);
    const Tensor all = test::tensor_of<float>(device, {9, 2, 24}, some_numbers(9 * 2 * 24));
    const Var whole = self_attention(tape.constant(all), kGrouped);
    const KeyValueCache cache{Tensor(device, {16, 2, 6}, DType::f32),
                              Tensor(device, {16, 2, 6}, DType::f32),
                              Tensor(device, {2}, DType::i64)};
    std::vector<float> joined;
    std::int64_t before = 0;
    for (const std::int64_t steps : {4, 1, 1, 3}) {
      copy_from_host(cache.position, std::vector<std::int64_t>(2, before).data());
      const Var y = cached_self_attention(tape.constant(all.slice(before, steps)), cache, kGrouped);
      for (const float value : host_floats(y.value())) joined.push_back(value);
      before += steps;
    }
    EXPECT_TRUE(close(joined, host_floats(whole.value()), kAttentionForwardTolerance.f32));
  }
}

TEST(AttentionRules, ACacheIsForTapesThatDoNotRecord) {
  Arena arena(Cpu{});
  Tape recording(arena, true), plain(arena, false);
  const Tensor x = arena.tensor({1, 2, 24}, DType::f32);
  const Tensor entries = arena.tensor({16, 2, 6}, DType::f32);
  const KeyValueCache cache{entries, entries, arena.tensor({2}, DType::i64)};
  EXPECT_THROW(cached_self_attention(recording.constant(x), cache, kGrouped), ConfigError);
  EXPECT_THROW(cached_self_attention(plain.constant(x), cache, {.heads = 3, .kv_heads = 2}),
               ShapeError);
  AttentionOptions biased = kGrouped;
  biased.bias = arena.tensor({4, 1, 16}, DType::f32);
  EXPECT_THROW(cached_self_attention(plain.constant(x), cache, biased), ConfigError);
}

TEST(AttentionRules, RefuseShapesThatDisagree) {
  Arena arena(Cpu{});
  Tape tape(arena, true);
  const auto var = [&](const Shape& shape) {
    return tape.constant(tape.tensor(shape, DType::f32));
  };
  const Var x = var({5, 2, 12});
  EXPECT_THROW(attention(x, x, x, {.heads = 5}), ShapeError);
  EXPECT_THROW(attention(x, x, var({4, 2, 12}), {.heads = 2}), ShapeError);
  EXPECT_THROW(attention(x, var({5, 3, 12}), x, {.heads = 2}), ShapeError);
  EXPECT_THROW(attention(var({10, 12}), x, x, {.heads = 2}), ShapeError);
  EXPECT_THROW(self_attention(x, {.heads = 3, .kv_heads = 2}), ShapeError);
  EXPECT_THROW(self_attention(x, {.heads = 2, .window = 3}), ConfigError);
  EXPECT_THROW(attention(x, x, x, {.heads = 0}), ShapeError);
}

}  // namespace
}  // namespace carousel
