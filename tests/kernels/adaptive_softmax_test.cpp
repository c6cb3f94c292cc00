#include "kernels/adaptive_softmax/adaptive_softmax.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "tests/reference/adaptive_softmax.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/types.h"

namespace carousel {
namespace {

using test::as_double;
using test::Buffer;
using test::close;
using test::of;
using test::on_all_devices_and_types;
using test::stored;
using Ids = std::vector<std::int32_t>;
using Cutoffs = std::vector<std::int64_t>;
using Numbers = std::vector<double>;

AdaptiveCutoffs cut(const Cutoffs& at, std::int64_t vocabulary) {
  return adaptive_cutoffs(at, vocabulary);
}

struct Routed {
  Ids head_target, row, local, place, count;
  float counted = 0;
  bool operator==(const Routed&) const = default;
};

Routed route(const Device& device, const AdaptiveCutoffs& cutoffs, const Ids& target) {
  const std::size_t n = target.size(), k = static_cast<std::size_t>(cutoffs.clusters);
  const Buffer<std::int32_t> words(device, target), head(device, n), row(device, k * n),
      local(device, k * n), place(device, k * n), count(device, k);
  const Buffer<float> counted(device, 1);
  run(device, AdaptiveRoute<float>{.cutoffs = cutoffs,
                                   .target = words.view(n),
                                   .head_target = head.view(n),
                                   .row = row.view(k, n),
                                   .local = local.view(k, n),
                                   .place = place.view(k, n),
                                   .count = count.view(k),
                                   .counted = counted.view(1)});
  return {head.read(), row.read(), local.read(), place.read(), count.read(), counted.read()[0]};
}

/// The same by sorting rows into lists.
Routed routed(const Cutoffs& at, std::int64_t vocabulary, const Ids& target) {
  Routed result;
  std::vector<Ids> rows(at.size()), places(at.size(), Ids(target.size(), -1));
  for (std::size_t n = 0; n < target.size(); ++n) {
    const std::int32_t word = target[n];
    result.counted += word == kIgnoreTarget ? 0 : 1;
    std::int32_t in_head = word;
    if (word < kIgnoreTarget || word >= vocabulary) in_head = INT32_MAX;
    const auto end = std::upper_bound(at.begin(), at.end(), std::int64_t{word});
    if (end != at.begin() && word < vocabulary) {
      const auto k = static_cast<std::size_t>(end - at.begin()) - 1;
      in_head = static_cast<std::int32_t>(at[0] + static_cast<std::int64_t>(k));
      places[k][n] = static_cast<std::int32_t>(rows[k].size());
      rows[k].push_back(static_cast<std::int32_t>(n));
    }
    result.head_target.push_back(in_head);
  }
  for (std::size_t k = 0; k < at.size(); ++k) {
    for (std::size_t m = 0; m < target.size(); ++m) {
      const bool there = m < rows[k].size();
      result.row.push_back(there ? rows[k][m] : -1);
      const auto first = static_cast<std::int32_t>(at[k]);
      result.local.push_back(there ? target[static_cast<std::size_t>(rows[k][m])] - first : -1);
      result.place.push_back(places[k][m]);
    }
    result.count.push_back(static_cast<std::int32_t>(rows[k].size()));
  }
  return result;
}

TEST(AdaptiveRoute, SendsWordsToTheirSoftmaxesByHand) {
  for (const Device& device : test::devices()) {
    const Routed got = route(device, cut({2, 5}, 9), {7, 1, -1, 5, 0, 4, 9, -2});
    EXPECT_EQ(got.head_target, (Ids{3, 1, -1, 3, 0, 2, INT32_MAX, INT32_MAX}));
    EXPECT_EQ(got.count, (Ids{1, 2}));
    EXPECT_EQ(got.counted, 7);
    EXPECT_EQ(got.row, (Ids{5, -1, -1, -1, -1, -1, -1, -1, 0, 3, -1, -1, -1, -1, -1, -1}));
    EXPECT_EQ(got.local, (Ids{2, -1, -1, -1, -1, -1, -1, -1, 2, 0, -1, -1, -1, -1, -1, -1}));
    EXPECT_EQ(got.place, (Ids{-1, -1, -1, -1, -1, 0, -1, -1, 0, -1, -1, 1, -1, -1, -1, -1}));
  }
}

// None, one, around a warp and a block's threads, and more than one row per thread.
TEST(AdaptiveRoute, SweepEqualsSortingIntoLists) {
  std::mt19937 random(5);
  for (const Cutoffs& at : {Cutoffs{1}, Cutoffs{40}, Cutoffs{3, 9, 27}}) {
    for (const std::size_t rows : {0U, 1U, 31U, 33U, 1023U, 1025U, 5000U}) {
      Ids target;
      for (std::size_t n = 0; n < rows; ++n) {
        target.push_back(static_cast<std::int32_t>(random() % 54) - 2);
      }
      const Routed want = routed(at, 50, target);
      for (const Device& device : test::devices()) {
        EXPECT_TRUE(route(device, cut(at, 50), target) == want)
            << test::device_name(device) << ": " << rows << " rows, " << at.size() << " clusters";
      }
    }
  }
}

TEST(AdaptiveRoute, RefusesCutoffsAndExtentsThatMakeNoSense) {
  for (const Cutoffs& bad : {Cutoffs{}, Cutoffs{0}, Cutoffs{-1}, Cutoffs{10}, Cutoffs{3, 3},
                             Cutoffs{4, 3}, Cutoffs{3, 11}, Cutoffs{1, 2, 3, 4, 5, 6, 7, 8, 9}}) {
    EXPECT_THROW(cut(bad, 10), ConfigError);
  }
  const Buffer<std::int32_t> numbers(Cpu{}, 100);
  const Buffer<float> one(Cpu{}, 1);
  std::int32_t* const data = numbers.view(100).data;
  const AdaptiveRoute<float> good{.cutoffs = cut({2, 5}, 9),
                                  .target = {data, {4}},
                                  .head_target = {data, {4}},
                                  .row = {data, {2, 4}},
                                  .local = {data, {2, 4}},
                                  .place = {data, {2, 4}},
                                  .count = {data, {2}},
                                  .counted = one.view(1)};
  EXPECT_NO_THROW(good.check());
  const auto refused = [&](const auto& change) {
    AdaptiveRoute<float> bad = good;
    change(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refused([](auto& op) { op.head_target.extent = {3}; });
  refused([](auto& op) { op.row.extent = {2, 3}; });
  refused([](auto& op) { op.local.extent = {1, 4}; });
  refused([](auto& op) { op.place.extent = {2, 5}; });
  refused([](auto& op) { op.count.extent = {3}; });
  refused([](auto& op) { op.counted.extent = {0}; });
  refused([](auto& op) { op.cutoffs = {}; });
  refused([](auto& op) { op.cutoffs.clusters = AdaptiveCutoffs::kMostClusters + 1; });
  refused([](auto& op) { op.cutoffs.bound[0] = 0; });
  refused([](auto& op) { op.cutoffs.bound[1] = 2; });
}

template <class T>
Numbers select(const Device& device, const Numbers& from, std::size_t width, const Ids& row,
               const Numbers& before = {}) {
  const Buffer<T> in(device, stored<T>(from));
  const Buffer<std::int32_t> rows(device, row);
  const Buffer<T> out =
      before.empty() ? Buffer<T>(device, row.size() * width) : Buffer<T>(device, stored<T>(before));
  run(device, SelectRows<T>{.from = in.view(from.size() / width, width),
                            .row = rows.view(row.size()),
                            .to = {out.view(row.size(), width), !before.empty()}});
  return as_double(out.read());
}

TEST(SelectRows, GathersRowsAndZerosByHand) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    const Numbers from{1, 2, 3, 4, 5, 6};
    EXPECT_EQ(select<T>(device, from, 2, {2, -1, 0, 3, 2}),
              (Numbers{5, 6, 0, 0, 1, 2, 0, 0, 5, 6}));
    EXPECT_EQ(select<T>(device, from, 2, {2, -1, 0}, {1, 1, 1, 1, 1, 1}),
              (Numbers{6, 7, 1, 1, 2, 3}));
    EXPECT_EQ(select<T>(device, {}, 1, {0, -1}), (Numbers{0, 0}));
    EXPECT_EQ(select<T>(device, from, 2, {}), Numbers{});
  });
}

TEST(SelectRows, TheSumIsRoundedOnceAtEveryWidth) {
  std::mt19937 random(9);
  on_all_devices_and_types([&]<class T>(const Device& device, std::type_identity<T>) {
    for (const std::size_t width : {1U, 15U, 33U, 256U, 650U}) {
      const std::size_t rows = 70, given = 40;
      Numbers from, before;
      for (std::size_t i = 0; i < given * width; ++i) {
        from.push_back(static_cast<double>(static_cast<T>(std::sin(static_cast<double>(i)))));
      }
      for (std::size_t i = 0; i < rows * width; ++i) {
        before.push_back(static_cast<double>(static_cast<T>(std::cos(static_cast<double>(i)))));
      }
      Ids row;
      for (std::size_t n = 0; n < rows; ++n) {
        row.push_back(static_cast<std::int32_t>(random() % (given + 9)) - 4);
      }
      Numbers want = before, fresh(before.size());
      for (std::size_t i = 0; i < want.size(); ++i) {
        const std::int32_t r = row[i / width];
        if (r < 0 || r >= static_cast<std::int32_t>(given)) continue;
        fresh[i] = from[static_cast<std::size_t>(r) * width + i % width];
        const float sum = static_cast<float>(before[i]) + static_cast<float>(fresh[i]);
        want[i] = static_cast<double>(static_cast<T>(sum));
      }
      EXPECT_EQ(select<T>(device, from, width, row, before), want) << width;
      EXPECT_EQ(select<T>(device, from, width, row), fresh) << width;
    }
  });
}

TEST(SelectRows, RefusesExtentsThatDisagree) {
  const Buffer<float> x(Cpu{}, 12);
  const Buffer<std::int32_t> row(Cpu{}, 3);
  const SelectRows<float> good{.from = x.view(2, 4), .row = row.view(3), .to = {x.view(3, 4)}};
  EXPECT_NO_THROW(good.check());
  SelectRows<float> bad = good;
  bad.row.extent = {2};
  EXPECT_THROW(bad.check(), ShapeError);
  bad = good;
  bad.from.extent = {2, 3};
  EXPECT_THROW(bad.check(), ShapeError);
}

/// Logits of a head and its tails.
struct Logits {
  std::size_t rows = 0;
  AdaptiveCutoffs cutoffs{};
  Numbers head{};
  std::vector<Numbers> tails{};
};

template <class T>
Numbers log_probabilities(const Device& device, const Logits& p) {
  const std::size_t vocab = static_cast<std::size_t>(p.cutoffs.vocabulary());
  const Buffer<T> head(device, stored<T>(p.head));
  const Buffer<Accumulator<T>> y(device, p.rows * vocab);
  AdaptiveLogProbabilities<T> op{.cutoffs = p.cutoffs,
                                 .head = head.view(p.rows, p.cutoffs.head()),
                                 .y = y.view(p.rows, vocab)};
  run(device, op);
  for (std::size_t k = 0; k < p.tails.size(); ++k) {
    const Buffer<T> tail(device, stored<T>(p.tails[k]));
    op.cluster = static_cast<int>(k);
    op.tail = tail.view(p.rows, p.cutoffs.words(op.cluster));
    run(device, op);
  }
  return as_double(y.read());
}

Numbers part(const Numbers& all, std::size_t row, std::size_t width) {
  const auto first = all.begin() + static_cast<std::ptrdiff_t>(row * width);
  return {first, first + static_cast<std::ptrdiff_t>(width)};
}

Numbers oracle(const Logits& p) {
  Numbers result;
  for (std::size_t b = 0; b < p.rows; ++b) {
    const Numbers head =
        reference::log_softmax(part(p.head, b, static_cast<std::size_t>(p.cutoffs.head())));
    const auto shortlist = static_cast<std::size_t>(p.cutoffs.shortlist());
    for (std::size_t w = 0; w < shortlist; ++w) result.push_back(head[w]);
    for (std::size_t k = 0; k < p.tails.size(); ++k) {
      const auto words = static_cast<std::size_t>(p.cutoffs.words(static_cast<int>(k)));
      for (const double own : reference::log_softmax(part(p.tails[k], b, words))) {
        result.push_back(head[shortlist + k] + own);
      }
    }
  }
  return result;
}

template <class T>
Logits random_logits(std::size_t rows, const Cutoffs& at, std::int64_t vocabulary) {
  std::mt19937 random(static_cast<unsigned>(vocabulary));
  std::uniform_real_distribution<double> draw(-30, 30);
  const auto logits = [&](std::int64_t words) {
    Numbers result;
    for (std::size_t i = 0; i < rows * static_cast<std::size_t>(words); ++i) {
      result.push_back(static_cast<double>(static_cast<T>(draw(random))));
    }
    return result;
  };
  Logits p{.rows = rows, .cutoffs = cut(at, vocabulary)};
  p.head = logits(p.cutoffs.head());
  for (int k = 0; k < p.cutoffs.clusters; ++k) p.tails.push_back(logits(p.cutoffs.words(k)));
  return p;
}

TEST(AdaptiveLogProbabilities, MultipliesTheClustersByHand) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    // p(cluster) = 1/2, in it 1/3 each.
    const Numbers got = log_probabilities<T>(
        device, {.rows = 1, .cutoffs = cut({1}, 4), .head = {5, 5}, .tails = {{-2, -2, -2}}});
    const double sixth = std::log(1.0 / 6);
    EXPECT_TRUE(close(got, Numbers{std::log(0.5), sixth, sixth, sixth},
                      of<T>(kAdaptiveLogProbabilityTolerance)));
  });
}

TEST(AdaptiveLogProbabilities, SweepIsWithinTheContractAndAddsUpToOne) {
  struct Size {
    std::size_t rows;
    Cutoffs at;
    std::int64_t vocabulary;
  };
  double worst[2] = {};
  on_all_devices_and_types([&]<class T>(const Device& device, std::type_identity<T>) {
    for (const Size& size : {Size{0, {3}, 7}, Size{1, {1}, 2}, Size{3, {31, 65}, 97},
                             Size{20, {5, 9, 300}, 1400}, Size{2, {2000, 10000}, 33000}}) {
      const Logits p = random_logits<T>(size.rows, size.at, size.vocabulary);
      const Numbers got = log_probabilities<T>(device, p), want = oracle(p);
      const Tolerance& tolerance = of<T>(kAdaptiveLogProbabilityTolerance);
      EXPECT_TRUE(close(got, want, tolerance)) << size.vocabulary;
      double& most = worst[sizeof(T) == sizeof(float) ? 0 : 1];
      most = std::max(most, test::worst_excess(got, want, tolerance));
      for (std::size_t b = 0; b < size.rows; ++b) {
        double sum = 0;
        for (const double x : part(got, b, static_cast<std::size_t>(size.vocabulary))) {
          sum += std::exp(x);
        }
        EXPECT_NEAR(sum, 1, 1e-5);
      }
    }
  });
  test::expect_recorded(worst[0], kAdaptiveLogProbabilityTolerance.f32);
  test::expect_recorded(worst[1], kAdaptiveLogProbabilityTolerance.bf16);
}

TEST(AdaptiveLogProbabilities, MaskedWordsAndNaNAreAsTheContractSays) {
  on_all_devices_and_types([]<class T>(const Device& device, std::type_identity<T>) {
    const auto solve = [&](const Numbers& head, const Numbers& tail) {
      return log_probabilities<T>(
          device, {.rows = 1, .cutoffs = cut({1}, 3), .head = head, .tails = {tail}});
    };
    EXPECT_EQ(solve({0, -INFINITY}, {1, 1}), (Numbers{0, -INFINITY, -INFINITY}));
    EXPECT_EQ(solve({-INFINITY, 0}, {1, -INFINITY}), (Numbers{-INFINITY, 0, -INFINITY}));
    for (const double x : solve({NAN, 0}, {1, 1})) EXPECT_TRUE(std::isnan(x));
    for (const double x : solve({-INFINITY, -INFINITY}, {1, 1})) EXPECT_TRUE(std::isnan(x));
    const Numbers got = solve({0, 0}, {1, NAN});
    EXPECT_FALSE(std::isnan(got[0]));
    EXPECT_TRUE(std::isnan(got[1]) && std::isnan(got[2]));
  });
}

TEST(AdaptiveLogProbabilities, RefusesExtentsThatDisagree) {
  const Buffer<float> x(Cpu{}, 200);
  float* const data = x.view(200).data;
  const AdaptiveLogProbabilities<float> good{.cutoffs = cut({2, 5}, 9),
                                             .head = {data, {3, 4}},
                                             .tail = {data, {3, 4}},
                                             .cluster = 1,
                                             .y = {data, {3, 9}}};
  EXPECT_NO_THROW(good.check());
  const auto refused = [&](const auto& change) {
    AdaptiveLogProbabilities<float> bad = good;
    change(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refused([](auto& op) { op.head.extent = {3, 3}; });
  refused([](auto& op) { op.tail.extent = {2, 4}; });
  refused([](auto& op) { op.tail.extent = {3, 3}; });
  refused([](auto& op) { op.cluster = 0; });  // has three words
  refused([](auto& op) { op.cluster = 2; });
  refused([](auto& op) { op.cluster = -1; });
  refused([](auto& op) { op.y.extent = {2, 9}; });
  refused([](auto& op) { op.y.extent = {3, 8}; });
}

}  // namespace
}  // namespace carousel
