#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/matmul/matmul.h"
#include "tests/kernels/linear_cross_entropy_problem.h"
#include "tests/support/products.h"

namespace carousel {
namespace {

using test::on_all_devices_and_types;
using test::linear_cross_entropy::all_nan;
using test::linear_cross_entropy::Arguments;
using test::linear_cross_entropy::expect_near;
using test::linear_cross_entropy::How;
using test::linear_cross_entropy::kWays;
using test::linear_cross_entropy::Problem;
using test::linear_cross_entropy::random_problem;
using test::linear_cross_entropy::Size;
using test::linear_cross_entropy::Solution;
using test::linear_cross_entropy::solve;
using test::linear_cross_entropy::weighted;

TEST(LinearCrossEntropy, AllIgnoredIsALossOfZeroWithoutGradients) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    Problem p = random_problem<T>({6, 4, 9}, /*seed=*/13);
    p.target.assign(p.rows, kIgnoreTarget);
    for (const How& how : kWays) {
      const Solution s = solve<T>(device, p, how);
      EXPECT_EQ(s.mean, 0);
      EXPECT_EQ(s.count, 0);
      EXPECT_EQ(s.loss, std::vector<double>(p.rows));
      EXPECT_EQ(s.d_hidden, std::vector<double>(p.hidden.size()));
      EXPECT_EQ(s.d_weight, std::vector<double>(p.weight.size()));
      EXPECT_EQ(s.d_bias, std::vector<double>(p.vocab));
    }
  });
}

TEST(LinearCrossEntropy, ATargetOutsideTheVocabularyPoisonsItsRowAndTheMean) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const std::int32_t outside : {9, -2, INT32_MAX, INT32_MIN}) {
      for (const How& how : kWays) {
        Problem p = random_problem<T>({3, 2, 9}, /*seed=*/13);
        p.target = {0, outside, 8};
        const Solution s = solve<T>(device, p, how);
        EXPECT_EQ(s.count, 3);
        EXPECT_TRUE(std::isnan(s.mean) && std::isnan(s.loss[1]));
        EXPECT_FALSE(std::isnan(s.loss[0]) || std::isnan(s.loss[2]));
        EXPECT_TRUE(all_nan({s.d_hidden[2], s.d_hidden[3]}) && !std::isnan(s.d_hidden[0]));
        EXPECT_TRUE(all_nan(s.d_weight) && all_nan(s.d_bias));
      }
    }
  });
}

TEST(LinearCrossEntropy, HugeLogitsAndMaskedWordsStayExact) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    for (const How& how : kWays) {
      Problem p = random_problem<T>({5, 1, 6}, /*seed=*/2);
      p.hidden = {100, -100, 100, -100, 0};
      p.weight = {1, -1, 0.5, 0, -0.5, 1};
      p.bias = {0, 0, 0, -INFINITY, 0, 0};
      p.target = {0, 1, 1, 4, 2};
      expect_near<T>(solve<T>(device, p, how), reference::linear_cross_entropy(p));
      EXPECT_EQ(solve<T>(device, p, how).d_bias[3], 0);
      p.target[2] = 3;  // masked
      EXPECT_EQ(solve<T>(device, p, how).mean, INFINITY);
    }
  });
}

// Equal but for the sign of zeros; a denominator is given, for count differs.
TEST(LinearCrossEntropy, ARowOfWeightZeroIsAnIgnoredRowButForItsLoss) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    Problem p = random_problem<T>({20, 4, 40}, /*seed=*/37);
    p.denominator = 16;
    p.bias[3] = -INFINITY;
    std::replace(p.target.begin(), p.target.end(), 3, 4);
    p.row_weight.assign(p.rows, 1);
    Problem ignoring = p;
    for (const std::size_t n : {2, 3, 19}) {
      p.target[n] = n == 3 ? 3 : 5;  // 3 is masked: its loss is infinite
      p.row_weight[n] = 0;
      ignoring.target[n] = kIgnoreTarget;
    }
    for (const How& how : kWays) {
      const Solution weighed = solve<T>(device, p, how), want = solve<T>(device, ignoring, how);
      EXPECT_EQ(weighed.mean, want.mean);
      EXPECT_EQ(weighed.d_hidden, want.d_hidden);
      EXPECT_EQ(weighed.d_weight, want.d_weight);
      EXPECT_EQ(weighed.d_bias, want.d_bias);
      EXPECT_GT(weighed.loss[2], 0);
      EXPECT_EQ(weighed.loss[3], INFINITY);
    }
  });
}

TEST(LinearCrossEntropy, AbsentWeightsAreOnesAndTheCountBitForBit) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    const Problem absent = random_problem<T>({21, 4, 40}, /*seed=*/41);
    for (const How& how : kWays) {
      const Solution want = solve<T>(device, absent, how);
      Problem p = absent;
      p.row_weight.assign(p.rows, 1);
      p.denominator = want.count;
      const Solution same = solve<T>(device, p, how);
      EXPECT_EQ(same.mean, want.mean);
      EXPECT_EQ(same.d_hidden, want.d_hidden);
      EXPECT_EQ(same.d_weight, want.d_weight);
      EXPECT_EQ(same.d_bias, want.d_bias);
    }
  });
}

TEST(LinearCrossEntropy, ADenominatorOfZeroIsALossOfZeroAndOneThatIsNaNPoisons) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    Problem p = random_problem<T>({6, 4, 9}, /*seed=*/43);
    for (const How& how : kWays) {
      p.denominator = 0;
      const Solution none = solve<T>(device, p, how);
      EXPECT_EQ(none.mean, 0);
      EXPECT_EQ(none.d_weight, std::vector<double>(p.weight.size()));
      p.denominator = NAN;
      const Solution poisoned = solve<T>(device, p, how);
      EXPECT_TRUE(std::isnan(poisoned.mean) && all_nan(poisoned.d_weight));
    }
  });
}

// What gradient accumulation and data-parallel training rest on.
TEST(LinearCrossEntropy, PartsOfABatchAddUpToTheBatchUnderItsDenominator) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    Problem whole = weighted(random_problem<T>({24, 4, 40}, /*seed=*/47), /*seed=*/48);
    const Solution want = reference::linear_cross_entropy(whole);
    std::vector<Solution> halves;
    for (const std::size_t first : {0, 9}) {
      const std::size_t last = first == 0 ? 9 : whole.rows;
      const auto part = [&](auto& values, std::size_t width) {
        using Difference = std::ptrdiff_t;
        return std::decay_t<decltype(values)>(
            values.begin() + static_cast<Difference>(first * width),
            values.begin() + static_cast<Difference>(last * width));
      };
      Problem half = whole;
      half.rows = last - first;
      half.hidden = part(whole.hidden, whole.width);
      half.target = part(whole.target, 1);
      half.row_weight = part(whole.row_weight, 1);
      halves.push_back(solve<T>(device, half));
    }
    Solution sum = halves[0];
    sum.mean += halves[1].mean, sum.count += halves[1].count;
    for (std::size_t i = 0; i < sum.d_weight.size(); ++i) sum.d_weight[i] += halves[1].d_weight[i];
    for (std::size_t i = 0; i < sum.d_bias.size(); ++i) sum.d_bias[i] += halves[1].d_bias[i];
    const auto append = [](auto& to, const auto& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    append(sum.loss, halves[1].loss), append(sum.d_hidden, halves[1].d_hidden);
    expect_near<T>(sum, want);

    whole.denominator = 2 * *whole.denominator;  // exact in every type
    const Solution halved = solve<T>(device, whole);
    EXPECT_NEAR(halved.mean, want.mean / 2, 1e-6);
    for (auto* d : {&sum.d_hidden, &sum.d_weight, &sum.d_bias}) {
      for (double& x : *d) x /= 2;
    }
    EXPECT_TRUE(test::close(halved.d_weight, sum.d_weight,
                            test::of<T>(kLinearCrossEntropyGradientTolerance)));
  });
}

TEST(LinearCrossEntropy, RefusesWhatItsContractRefuses) {
  const Device cpu = Cpu{};
  const Arguments<float> arguments(cpu, random_problem<float>({4, 3, 6}, /*seed=*/1), {});
  EXPECT_NO_THROW(run(cpu, arguments.op));
  const auto refuses = [&](auto change) {
    LinearCrossEntropy<float> op = arguments.op;
    change(op);
    EXPECT_ANY_THROW(run(cpu, op));
  };
  refuses([](auto& op) { op.hidden.extent = {3, 4}; });
  refuses([](auto& op) { op.weight.extent = {3, 6}; });
  refuses([](auto& op) { op.weight.extent = {0, 3}; });
  refuses([](auto& op) { op.bias.extent = {5}; });
  refuses([](auto& op) { op.target.extent = {3}; });
  refuses([](auto& op) { op.loss.extent = {3}; });
  refuses([](auto& op) { op.mean_loss.extent = {0}; });
  refuses([](auto& op) { op.count.extent = {0}; });
  refuses([](auto& op) { op.d_hidden.view.extent = {3, 4}; });
  refuses([](auto& op) { op.d_weight.view.extent = {3, 6}; });
  refuses([](auto& op) { op.d_bias.view.extent = {5}; });
  refuses([](auto& op) { op.row_weight = {op.loss.data, {3}}; });
  refuses([](auto& op) { op.denominator = {op.loss.data, {4}}; });
  refuses([](auto& op) { op.label_smoothing = NAN; });
  refuses([](auto& op) { op.term_weight = INFINITY; });
  refuses([](auto& op) { op.chunk_rows = -1; });
  refuses([](auto& op) { op.chunk_words = -1; });
  refuses([](auto& op) { --op.scratch.extent[0]; });
}

TEST(LinearCrossEntropy, ScratchIsWhatItSaysAndNeverMoreThanTheLimit) {
  for (const Device& device : test::devices()) {
    const auto bytes = [&]<class T>(std::type_identity<T>, Size size) {
      LinearCrossEntropy<T> op{};
      T some{};
      op.hidden.extent = {static_cast<std::int64_t>(size.rows),
                          static_cast<std::int64_t>(size.width)};
      op.weight.extent = {static_cast<std::int64_t>(size.vocab),
                          static_cast<std::int64_t>(size.width)};
      op.d_hidden.view.data = &some;
      Accumulator<T> one{};
      op.d_bias.view.data = &one;
      const auto [rows, words] = op.tile(device);
      EXPECT_LE(rows, op.hidden.extent[0]);
      EXPECT_GE(rows, std::min<std::int64_t>(op.hidden.extent[0], 1));
      EXPECT_TRUE(1 <= words && words <= op.weight.extent[0]);
      return scratch_bytes(device, op);
    };
    for (const Size size : {Size{2048, 256, 65}, Size{100'000, 64, 5}, Size{4096, 1024, 50'257},
                            Size{65'536, 4096, 256'000}, Size{1'000'000, 8192, 65}}) {
      EXPECT_LE(bytes(std::type_identity<float>{}, size), std::size_t{64} << 20);
      EXPECT_LE(bytes(std::type_identity<bf16>{}, size), std::size_t{64} << 20);
      if (!is_cpu(device)) continue;  // which has no double
      EXPECT_LE(bytes(std::type_identity<double>{}, size), std::size_t{64} << 20);
    }
    EXPECT_EQ(bytes(std::type_identity<float>{}, {0, 8, 10}), 0U);
  }
}

TEST(LinearCrossEntropy, AsksTheDeviceForNoMemoryOfItsOwn) {
  for (const Device& device : test::devices()) {
    const Arguments<float> arguments(device, random_problem<float>({40, 8, 65}, /*seed=*/1), {});
    const MemoryUse before = memory_use(device);
    run(device, arguments.op);
    EXPECT_EQ(memory_use(device).allocations, before.allocations);
    EXPECT_EQ(memory_use(device).peak, before.peak);
  }
}

TEST(LinearCrossEntropy, Tf32RoundsProductsWhereItRan) {
  for (const Device& device : test::devices()) {
    for (const Size& size : {Size{40, 64, 65}, Size{16, 512, 512}}) {
      const auto problem = random_problem<float>(size, /*seed=*/3);
      const auto solution = [&](bool tf32) {
        Arguments<float> arguments(device, problem, {});
        arguments.op.tf32 = tf32;
        run(device, arguments.op);
        return arguments.read();
      };
      const Solution exact = solution(false);
      Solution rough;
      const bool rounds = test::ran_in_tf32([&] { rough = solution(true); });
      EXPECT_EQ(exact.d_weight != rough.d_weight, rounds);
      EXPECT_FALSE(rounds && is_cpu(device));
      if (!test::has_gpu() && !is_cpu(device)) {
        EXPECT_EQ(rounds, size.vocab == 512);
      }
      EXPECT_TRUE(test::close(rough.loss, exact.loss, kMatmulTf32Tolerance));
      EXPECT_TRUE(test::close(rough.d_weight, exact.d_weight, kMatmulTf32Tolerance));
    }
  }
}

TEST(LinearCrossEntropy, RepeatsBitForBit) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    const Problem p = random_problem<T>({50, 16, 65}, /*seed=*/31);
    for (const How& how : {How{.chunk_rows = 20}, How{.chunk_rows = 40, .chunk_words = 32}}) {
      const Solution once = solve<T>(device, p, how);
      const Solution again = solve<T>(device, p, how);
      EXPECT_EQ(once.loss, again.loss);
      EXPECT_EQ(once.d_hidden, again.d_hidden);
      EXPECT_EQ(once.d_weight, again.d_weight);
      EXPECT_EQ(once.d_bias, again.d_bias);
    }
  });
}

}  // namespace
}  // namespace carousel
