// Row-sparse embeddings in training: beside a dense one, on a graph, resumed, and what they cost.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <functional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/ops.h"
#include "engine/training/optimizer.h"
#include "kernels/common/check.h"
#include "kernels/common/graph.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::read;
using Tokens = std::vector<std::int32_t>;

/// Tokens to classes: an embedding, a linear layer, and cross-entropy.
struct Net {
  struct Options {
    bool row_sparse = true;
    OptimizerConfig optimizer{.kind = "sgd"};
    std::int64_t vocab = 40, width = 8, tokens = 12;
    DType compute = DType::f32;
    ParameterGroup table{};
  };
  enum Index : std::size_t { table, weight, bias };

  Net(const Device& device, const Options& o)
      : parameters(declared(device, o)),
        optimizer(o.optimizer, parameters),
        arena(device),
        tape(arena, true),
        token(device, {o.tokens}, DType::i32),
        target(device, {o.tokens}, DType::i32),
        rate(test::tensor_of<float>(device, {1}, {0.125F})),
        number(device, {1}, DType::i64) {}

  static Parameters declared(const Device& device, const Options& o) {
    const Initializer drawn{.kind = Initializer::Kind::uniform, .scale = 0.5};
    // As many numbers as these are not drawn.
    const Initializer begun = o.vocab > 1000 ? Initializer{.scale = 0.25} : drawn;
    Parameters result;
    result.declare("table", {o.vocab, o.width}, begun,
                   {.group = o.table, .row_sparse = o.row_sparse});
    result.declare("weight", {kClasses, o.width}, drawn);
    result.declare("bias", {kClasses}, drawn);
    result.materialize(device, o.compute, /*seed=*/1);
    return result;
  }

  void give(const Tokens& tokens) {
    ++count;
    Tokens classes = tokens;
    for (std::int32_t& c : classes) c = std::abs(c % static_cast<std::int32_t>(kClasses));
    copy_from_host(token, tokens.data());
    copy_from_host(target, classes.data());
    copy_from_host(number, &count);
  }
  void queue_gradients() {
    tape.clear();
    arena.reset();
    const Var x = embedding(parameters.on(tape, table), token);
    loss = linear_cross_entropy(x, parameters.on(tape, weight), parameters.on(tape, bias), target)
               .mean.value();
    tape.backward();
    parameters.zero_unreached(tape);
  }
  void queue() {
    queue_gradients();
    optimizer.step(rate, number, loss);
  }
  void step(const Tokens& tokens) {
    give(tokens);
    queue();
  }

  /// Every bit of a parameter's row and of its moments, as numbers.
  std::vector<float> row(std::int64_t r) const {
    std::vector<float> result;
    const auto append = [&](const Tensor& of) {
      const auto values = read<float>(of.slice(r, 1));
      result.insert(result.end(), values.begin(), values.end());
    };
    append(parameters.weight(table));
    for (const auto& [name, moment] : optimizer.state_of(table)) append(moment);
    return result;
  }
  std::vector<std::vector<float>> weights() const {
    std::vector<std::vector<float>> result;
    for (std::size_t i = 0; i < parameters.count(); ++i) {
      result.push_back(read<float>(parameters.weight(i)));
    }
    return result;
  }

  static constexpr std::int64_t kClasses = 5;
  Parameters parameters;
  Optimizer optimizer;
  Arena arena;
  Tape tape;
  Tensor token, target, rate, number, loss;
  std::int64_t count = 0;
};

Tokens drawn_tokens(unsigned seed, std::int64_t vocab = 40, std::size_t count = 12) {
  std::mt19937 random(seed);
  Tokens tokens(count);
  for (std::int32_t& t : tokens) {
    t = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocab));
  }
  return tokens;
}

class RowSparseOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, RowSparseOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

// Without momentum and decay nothing happens to untouched rows of a dense matrix either, so that
// all weights agree bit for bit; with a clipped norm up to the order of its partial sums.
TEST_P(RowSparseOn, TrainsAsADenseTableDoes) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    for (const double clip_norm : {0.0, 0.5}) {
      Net::Options o{.optimizer = {.kind = "sgd", .clip_norm = clip_norm}, .compute = compute};
      Net sparse(GetParam(), o);
      o.row_sparse = false;
      Net dense(GetParam(), o);
      std::vector<Tokens> steps{Tokens(12, 7), {0, 39, 0, 1, 1, 1, 39, 2, 3, 4, 5, 6}};
      for (unsigned seed = 0; seed < 6; ++seed) steps.push_back(drawn_tokens(seed));
      const auto start = sparse.weights();
      EXPECT_EQ(start, dense.weights());
      for (const Tokens& tokens : steps) {
        sparse.step(tokens);
        dense.step(tokens);
        EXPECT_FLOAT_EQ(read<float>(sparse.optimizer.gradient_norm())[0],
                        read<float>(dense.optimizer.gradient_norm())[0]);
      }
      const auto got = sparse.weights(), want = dense.weights();
      EXPECT_NE(got[Net::table], start[Net::table]);
      for (std::size_t i = 0; i < got.size(); ++i) {
        if (clip_norm == 0) {
          EXPECT_EQ(got[i], want[i]) << dense.parameters.name(i);
        } else {
          EXPECT_TRUE(test::close(got[i], want[i], {.absolute = 1e-6})) << dense.parameters.name(i);
        }
      }
    }
  }
}

TEST_P(RowSparseOn, UntouchedRowsAndTheirMomentsKeepTheirBits) {
  for (const OptimizerConfig& optimizer :
       {OptimizerConfig{.kind = "sgd", .momentum = 0.9, .weight_decay = 0.1},
        OptimizerConfig{.kind = "adamw", .weight_decay = 0.1},
        OptimizerConfig{.kind = "rmsprop", .momentum = 0.5, .centered = true},
        OptimizerConfig{.kind = "adagrad", .initial_accumulator = 0.5}}) {
    Net::Options o{.optimizer = optimizer};
    Net sparse(GetParam(), o);
    o.row_sparse = false;
    Net dense(GetParam(), o);
    for (unsigned seed = 1; seed <= 3; ++seed) {
      const Tokens tokens = drawn_tokens(seed);
      const std::set<std::int32_t> touched(tokens.begin(), tokens.end());
      std::vector<std::vector<float>> before;
      for (std::int64_t r = 0; r < 40; ++r) before.push_back(sparse.row(r));
      sparse.step(tokens);
      if (seed == 1) dense.step(tokens);
      for (std::int32_t r = 0; r < 40; ++r) {
        const auto& old = before[static_cast<std::size_t>(r)];
        if (touched.count(r) == 0) {
          EXPECT_EQ(sparse.row(r), old) << optimizer.kind << ", row " << r;
        } else {
          EXPECT_NE(sparse.row(r), old) << optimizer.kind << ", row " << r;
          // At first touch all moments are as at the start, as the dense ones are.
          if (seed == 1) {
            EXPECT_EQ(sparse.row(r), dense.row(r)) << optimizer.kind << ", row " << r;
          }
        }
      }
    }
  }
}

TEST_P(RowSparseOn, TheBf16CopyFollowsTouchedRowsAndRestoredWeights) {
  Net net(GetParam(), {.compute = DType::bf16});
  const auto expect_rounded = [&] {
    const auto weights = read<float>(net.parameters.weight(Net::table));
    const auto copy = read<bf16>(net.parameters.working(Net::table));
    for (std::size_t i = 0; i < weights.size(); ++i) {
      ASSERT_EQ(copy[i].bits, bf16(weights[i]).bits) << i;
    }
  };
  expect_rounded();
  net.step(drawn_tokens(1));
  expect_rounded();
  copy_from_host(net.parameters.weight(Net::table), std::vector<float>(320, 0.3F).data());
  net.parameters.refresh_working();
  expect_rounded();
}

TEST_P(RowSparseOn, ContinuesFromItsStateBitForBit) {
  const Net::Options o{.optimizer = {.kind = "adamw", .weight_decay = 0.1, .clip_norm = 1},
                       .compute = DType::bf16};
  Net whole(GetParam(), o), resumed(GetParam(), o);
  for (unsigned seed = 0; seed < 3; ++seed) whole.step(drawn_tokens(seed));
  const auto from = whole.optimizer.state(), to = resumed.optimizer.state();
  ASSERT_EQ(from.size(), 4);
  EXPECT_EQ(from[2].first, "exp_avg.table");
  EXPECT_EQ(from[3].first, "exp_avg_sq.table");
  for (std::size_t i = 0; i < from.size(); ++i) {
    EXPECT_EQ(from[i].first, to[i].first);
    copy_from_host(to[i].second, read<float>(from[i].second).data());
  }
  for (std::size_t i = 0; i < 3; ++i) {
    copy_from_host(resumed.parameters.weight(i), read<float>(whole.parameters.weight(i)).data());
  }
  resumed.parameters.refresh_working();
  resumed.count = whole.count;
  for (unsigned seed = 3; seed < 6; ++seed) {
    whole.step(drawn_tokens(seed));
    resumed.step(drawn_tokens(seed));
  }
  EXPECT_EQ(whole.weights(), resumed.weights());
  for (std::int64_t r = 0; r < 40; ++r) EXPECT_EQ(whole.row(r), resumed.row(r));
}

// The number of rows differs from launch to launch and is known to the device alone.
TEST(RowSparse, AGraphOfTheStepGivesTheBitsOfEagerSteps) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  const Device& cuda = *test::cuda_device();
  const Net::Options o{.optimizer = {.kind = "adam", .clip_norm = 1}, .compute = DType::bf16};
  Net eager(cuda, o), captured(cuda, o);
  const std::vector<Tokens> steps{drawn_tokens(1),
                                  Tokens(12, 3),
                                  Tokens(12, -1),
                                  drawn_tokens(2),
                                  {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}};
  for (const Tokens& tokens : steps) eager.step(tokens);
  captured.step(steps[0]);
  const Graph graph(cuda, [&] { captured.queue(); });
  for (std::size_t i = 1; i < steps.size(); ++i) {
    captured.give(steps[i]);
    graph.launch();
  }
  // The third step's tokens are none, so that its loss is NaN and nothing changes any more.
  EXPECT_EQ(read<std::int32_t>(captured.optimizer.finite())[0], 0);
  EXPECT_EQ(captured.weights(), eager.weights());
  for (std::int64_t r = 0; r < 40; ++r) EXPECT_EQ(captured.row(r), eager.row(r));
}

TEST_P(RowSparseOn, ATableThatAStepDoesNotReachStays) {
  Net net(GetParam(), {});
  net.step(drawn_tokens(1));
  ASSERT_TRUE(net.parameters.row_gradient(Net::table)->present());
  const auto table = read<float>(net.parameters.weight(Net::table));
  for (const bool asked_for : {false, true}) {
    net.give(drawn_tokens(2));
    net.tape.clear();
    net.arena.reset();
    if (asked_for) net.parameters.on(net.tape, Net::table);
    test::sum(net.parameters.on(net.tape, Net::bias));
    net.tape.backward();
    net.parameters.zero_unreached(net.tape);
    EXPECT_FALSE(net.parameters.row_gradient(Net::table)->present());
    net.optimizer.step(net.rate, net.number, test::tensor_of<float>(GetParam(), {1}, {1}));
    EXPECT_FLOAT_EQ(read<float>(net.optimizer.gradient_norm())[0],
                    std::sqrt(static_cast<float>(Net::kClasses)));
    EXPECT_EQ(read<float>(net.parameters.weight(Net::table)), table);
  }
}

TEST_P(RowSparseOn, ABadGradientIsNamedAndTheStepNotTaken) {
  Net net(GetParam(), {});
  net.step(drawn_tokens(1));
  const auto before = net.weights();
  net.give(Tokens(12, 3));
  net.queue_gradients();
  const Tensor values = net.parameters.row_gradient(Net::table)->values;
  copy_from_host(values.slice(1, 11), std::vector<float>(11 * 8, NAN).data());  // not in use
  EXPECT_EQ(net.tape.first_non_finite(), "");
  copy_from_host(values.slice(0, 1), std::vector<float>{0, 0, 0, 0, 0, 0, 0, NAN}.data());
  EXPECT_EQ(net.tape.first_non_finite(), "the gradient of table");
  net.optimizer.step(net.rate, net.number, net.loss);
  EXPECT_EQ(net.weights(), before);
  EXPECT_EQ(read<std::int32_t>(net.optimizer.finite())[0], 0);
}

TEST_P(RowSparseOn, AFrozenTableIsAConstant) {
  Net net(GetParam(), {.table = {.frozen = true}});
  const auto before = net.weights();
  net.step(drawn_tokens(1));
  EXPECT_EQ(net.weights()[Net::table], before[Net::table]);
  EXPECT_NE(net.weights()[Net::weight], before[Net::weight]);
  EXPECT_EQ(net.parameters.row_gradient(Net::table), nullptr);
  EXPECT_TRUE(net.optimizer.state_of(Net::table).empty());
}

TEST_P(RowSparseOn, TheTableHasAGroupToo) {
  Net slow(GetParam(), {.table = {.learning_rate_factor = 0}}), net(GetParam(), {});
  const auto before = slow.weights();
  slow.step(drawn_tokens(1));
  net.step(drawn_tokens(1));
  EXPECT_EQ(slow.weights()[Net::table], before[Net::table]);
  EXPECT_EQ(slow.weights()[Net::weight], net.weights()[Net::weight]);
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(RowSparse, RefusesASecondReaderInOneStep) {
  const Device cpu = Cpu{};
  Net net(cpu, {.vocab = 5});
  net.give(drawn_tokens(1, 5));
  const auto two_lookups = [&] {
    net.tape.clear();
    net.arena.reset();
    for (int i = 0; i < 2; ++i) {
      test::sum(embedding(net.parameters.on(net.tape, Net::table), net.token));
    }
    net.tape.backward();
  };
  EXPECT_EQ(
      message_of(two_lookups),
      "tape: 'table' is row-sparse, and two lookups read it in one step; join their tokens, or "
      "declare it dense");
  const auto tied = [&] {
    net.tape.clear();
    net.arena.reset();
    const Var table = net.parameters.on(net.tape, Net::table);
    linear_cross_entropy(embedding(table, net.token), table, {}, net.target);
    net.tape.backward();
  };
  EXPECT_EQ(
      message_of(tied),
      "tape: 'table' is row-sparse, so that only a lookup can read it; declare it dense where "
      "a product does too, as with tied embeddings");
  Parameters parameters;
  EXPECT_THROW(parameters.declare("cube", {4, 2, 3}, {}, {.row_sparse = true}), ShapeError);
}

/// Of one step: the thread's seconds, whatever else the machine does, and the bytes of its arena.
struct Cost {
  double seconds = INFINITY;
  std::size_t bytes = 0;
};
double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}
Cost cost_of_step(std::int64_t vocab, bool row_sparse) {
  constexpr std::int64_t kTokens = 512;
  Net net(Cpu{}, {.row_sparse = row_sparse,
                  .optimizer = {.kind = "adam", .clip_norm = 1},
                  .vocab = vocab,
                  .width = 16,
                  .tokens = kTokens});
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  Cost cost;
  for (unsigned i = 0; i < (row_sparse ? 20U : 3U); ++i) {
    net.give(drawn_tokens(i, vocab, kTokens));
    const double begun = processor_seconds();
    net.queue();
    cost.seconds = std::min(cost.seconds, processor_seconds() - begun);
  }
  omp_set_num_threads(threads);
  cost.bytes = net.arena.used();
  return cost;
}

// A hundred times the rows: the same memory, and about the same time, where a dense step takes a
// hundred times longer. The bounds leave room for a cache that the smaller table fits.
TEST(RowSparse, AMillionRowsCostWhatTheTouchedOnesDo) {
  const Cost few = cost_of_step(10'000, true), many = cost_of_step(1'000'000, true);
  const Cost dense = cost_of_step(1'000'000, false);
  EXPECT_EQ(many.bytes, few.bytes);
  EXPECT_LT(many.seconds, 10 * few.seconds);
  EXPECT_LT(5 * many.seconds, dense.seconds);
  RecordProperty("dense_to_sparse", std::to_string(dense.seconds / many.seconds));
}

}  // namespace
}  // namespace carousel
