#include "kernels/word_windows/word_windows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "tests/reference/word_windows.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::Buffer;
using Ids = std::vector<std::int32_t>;

constexpr std::int32_t kNone = kNoToken;

/// What is empty is absent.
struct Problem {
  std::size_t steps = 0, rows = 0, width = 0;
  Ids token{}, inside{}, reset{};
  std::vector<float> keep{};
  bool drawn = false;
  reference::Draw draw{5, 6, 7};
};

struct Solution {
  Ids context, center, near;
  bool operator==(const Solution&) const = default;
};

Solution solve(const Device& device, const Problem& p) {
  const std::size_t T = p.steps, B = p.rows, K = 2 * p.width;
  const Buffer<std::int32_t> token(device, p.token), inside(device, p.inside),
      reset(device, p.reset), reached(device, T * B), context(device, T * B * K),
      center(device, T * B), near(device, T * B * K);
  const Buffer<float> keep(device, p.keep);
  const Buffer<std::int64_t> step(device, std::vector<std::int64_t>{p.draw.step});
  WordWindows op{.token = token.view(T, B),
                 .keep = keep.view(p.keep.size()),
                 .width = static_cast<std::int64_t>(p.width),
                 .source = {.seed = p.draw.seed, .stream = p.draw.stream},
                 .reached = reached.view(T, B),
                 .context = context.view(T, B, K),
                 .center = center.view(T, B),
                 .near = near.view(T, B, K)};
  if (!p.inside.empty()) op.inside = inside.view(T, B);
  if (!p.reset.empty()) op.reset = reset.view(T, B);
  if (p.drawn) op.source.step = step.view(1);
  run(device, op);
  return {context.read(), center.read(), near.read()};
}

/// The words of row b that are kept.
std::vector<reference::KeptWord> kept_words(const Problem& p, std::size_t b) {
  std::vector<reference::KeptWord> text;
  int piece = 0;
  for (std::size_t t = 0; t < p.steps; ++t) {
    const std::size_t place = t * p.rows + b;
    if (!p.reset.empty() && p.reset[place] != 0) ++piece;
    const std::int32_t id = p.token[place];
    if (!p.inside.empty() && p.inside[place] < 0) continue;
    if (id < 0 || static_cast<std::size_t>(id) >= p.keep.size()) continue;
    const double keep = static_cast<double>(p.keep[static_cast<std::size_t>(id)]);
    const double u =
        p.drawn ? static_cast<double>(reference::drawn_at(p.draw, place, 0) / 256) / 16777216.0 : 0;
    if (u < keep) text.push_back({id, place, piece});
  }
  return text;
}

Solution oracle(const Problem& p) {
  const std::size_t slots = 2 * p.width, words = p.steps * p.rows;
  Solution s{.context = Ids(words * slots, kNone),
             .center = Ids(words, kIgnoreTarget),
             .near = Ids(words * slots, kIgnoreTarget)};
  for (std::size_t b = 0; b < p.rows; ++b) {
    const auto text = kept_words(p, b);
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto [id, place, piece] = text[i];
      const double u = static_cast<double>(reference::drawn_at(p.draw, place, 1)) / 4294967296.0;
      const auto less =
          p.drawn ? static_cast<std::size_t>(u * static_cast<double>(p.width)) : std::size_t{0};
      const auto put = [&](std::size_t slot, std::int32_t other, std::int32_t word) {
        s.context[place * slots + slot] = other;
        s.near[place * slots + slot] = word;
        s.center[place] = word;
      };
      const auto before = reference::neighbours(text, i, p.width - less, false);
      const auto after = reference::neighbours(text, i, p.width - less, true);
      for (std::size_t j = 0; j < before.size(); ++j) put(p.width - 1 - j, before[j], id);
      for (std::size_t j = 0; j < after.size(); ++j) put(p.width + j, after[j], id);
    }
  }
  return s;
}

Problem random_problem(std::size_t steps, std::size_t rows, std::size_t width, unsigned options) {
  std::mt19937 random(static_cast<unsigned>(steps * 7 + rows * 3 + width));
  Problem p{.steps = steps, .rows = rows, .width = width, .drawn = (options & 4U) != 0};
  for (const float keep : {1.0F, 0.5F, 0.2F, 0.0F, 0.9F}) p.keep.push_back(keep);
  for (std::size_t i = 0; i < steps * rows; ++i) {
    p.token.push_back(static_cast<std::int32_t>(random() % 7) - 1);  // two are outside
    if ((options & 1U) != 0) p.inside.push_back(static_cast<std::int32_t>(random() % 6) - 1);
    if ((options & 2U) != 0) p.reset.push_back(random() % 9 == 0 ? 1 : 0);
  }
  return p;
}

// Leg 1: one row, worked by hand. Word 1 is left out, and the windows reach over it.
TEST(WordWindows, ReachOverWordsLeftOutAndNotOverARestart) {
  for (const Device& device : test::devices()) {
    const Solution got = solve(device, {.steps = 6,
                                        .rows = 1,
                                        .width = 2,
                                        .token = {0, 1, 2, 3, 1, 4},
                                        .reset = {1, 0, 0, 0, 1, 0},
                                        .keep = {1, 0, 0.5F, 1, 1}});
    EXPECT_EQ(got.center, (Ids{0, -1, 2, 3, -1, -1}));
    EXPECT_EQ(got.context, (Ids{kNone, kNone, 2,     3,     kNone, kNone, kNone, kNone,
                                kNone, 0,     3,     kNone, 0,     2,     kNone, kNone,
                                kNone, kNone, kNone, kNone, kNone, kNone, kNone, kNone}));
    EXPECT_EQ(got.near, (Ids{-1, -1, 0,  0,  -1, -1, -1, -1, -1, 2,  2,  -1,
                             3,  3,  -1, -1, -1, -1, -1, -1, -1, -1, -1, -1}));
  }
}

// Leg 2, of an op without gradients: keep and the radius have their distributions.
TEST(WordWindows, KeepsAndShrinksAsOftenAsItShould) {
  const std::size_t words = 40'000, width = 4;
  Problem p{.steps = words, .rows = 1, .width = width, .keep = {0.3F}, .drawn = true};
  p.token = Ids(words, 0);
  for (const Device& device : test::devices()) {
    const Solution s = solve(device, p);
    double kept = 0;
    std::vector<double> radius(width + 1, 0.0);
    for (std::size_t n = 0; n < words; ++n) {
      if (s.center[n] < 0) continue;
      ++kept;
      std::size_t reach = 0;
      while (reach < width && s.context[n * 2 * width + width + reach] != kNone) ++reach;
      ++radius[reach];
    }
    const double deviation = std::sqrt(0.3 * 0.7 * static_cast<double>(words));
    EXPECT_NEAR(kept, 0.3 * static_cast<double>(words), 4 * deviation);
    double chi_squared = 0;  // of 3 degrees of freedom: its mean is 3, its deviation √6
    for (std::size_t r = 1; r <= width; ++r) {
      chi_squared += (radius[r] - kept / 4) * (radius[r] - kept / 4) / (kept / 4);
    }
    EXPECT_LT(chi_squared, 3 + 4 * std::sqrt(6.0));
  }
}

// Leg 3: every device against the oracle, with each option and without.
TEST(WordWindows, SweepEqualsTheOracle) {
  struct Size {
    std::size_t steps, rows, width;
  };
  for (const auto& [steps, rows, width] :
       {Size{0, 3, 2}, Size{1, 1, 1}, Size{2, 5, 4}, Size{9, 0, 2}, Size{40, 3, 1}, Size{64, 16, 5},
        Size{700, 2, 10}, Size{33, 40, 3}}) {
    for (unsigned options = 0; options < 8; ++options) {
      const Problem p = random_problem(steps, rows, width, options);
      const Solution want = oracle(p);
      for (const Device& device : test::devices()) {
        EXPECT_TRUE(solve(device, p) == want) << test::device_name(device) << ": " << steps << ", "
                                              << rows << ", " << width << ", options " << options;
      }
    }
  }
}

// Leg 4: the contract on bad input.
TEST(WordWindows, RefusesWhatItsContractRefuses) {
  Ids ids(100);
  std::vector<float> numbers(10);
  std::int32_t* const data = ids.data();
  const WordWindows good{.token = {data, {2, 3}},
                         .inside = {data, {2, 3}},
                         .reset = {data, {2, 3}},
                         .keep = {numbers.data(), {4}},
                         .width = 2,
                         .reached = {data, {2, 3}},
                         .context = {data, {2, 3, 4}},
                         .center = {data, {2, 3}},
                         .near = {data, {2, 3, 4}}};
  EXPECT_NO_THROW(good.check());
  const auto refused = [&](const auto& change) {
    WordWindows bad = good;
    change(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refused([](auto& op) { op.width = 0; });
  refused([](auto& op) { op.width = 4097; });
  refused([](auto& op) { op.inside.extent = {3, 3}; });
  refused([](auto& op) { op.reset.extent = {2, 2}; });
  refused([](auto& op) { op.reached.extent = {2, 2}; });
  refused([](auto& op) { op.center.extent = {1, 3}; });
  refused([](auto& op) { op.context.extent = {2, 3, 3}; });
  refused([](auto& op) { op.context.extent = {1, 3, 4}; });
  refused([](auto& op) { op.near.extent = {2, 2, 4}; });
}

// Leg 5: with whole windows, a word is as often in the context of another as the other in its own.
TEST(WordWindows, WholeWindowsAreMutual) {
  for (const Device& device : test::devices()) {
    for (unsigned options = 0; options < 4; ++options) {
      const Problem p = random_problem(50, 4, 3, options);
      const Solution s = solve(device, p);
      std::vector<int> pairs(25, 0);
      for (std::size_t i = 0; i < s.context.size(); ++i) {
        if (s.context[i] == kNone) continue;
        ++pairs[static_cast<std::size_t>(s.context[i] * 5 + s.near[i])];
        --pairs[static_cast<std::size_t>(s.near[i] * 5 + s.context[i])];
      }
      EXPECT_EQ(pairs, std::vector<int>(25, 0));
    }
  }
}

}  // namespace
}  // namespace carousel
