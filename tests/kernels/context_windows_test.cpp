#include "kernels/context_windows/context_windows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/context_windows.h"
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
  Ids token{}, reset{}, lengths{}, before{};
};

struct Solution {
  Ids context, last, after;
  bool operator==(const Solution&) const = default;
};

Solution solve(const Device& device, const Problem& p) {
  const std::size_t T = p.steps, B = p.rows, K = p.width;
  const Buffer<std::int32_t> token(device, p.token), reset(device, p.reset),
      lengths(device, p.lengths), before(device, p.before), context(device, T * B * K),
      last(device, B * K), after(device, B * K);
  ContextWindows op{.token = token.view(T, B),
                    .width = static_cast<std::int64_t>(K),
                    .context = context.view(T, B, K),
                    .last = last.view(B, K),
                    .after = after.view(B, K)};
  if (!p.reset.empty()) op.reset = reset.view(T, B);
  if (!p.lengths.empty()) op.lengths = lengths.view(B);
  if (!p.before.empty()) op.before = before.view(B, K);
  run(device, op);
  return {context.read(), last.read(), after.read()};
}

Solution oracle(const Problem& p) {
  Solution s{.context = Ids(p.steps * p.rows * p.width, kNone), .last = {}, .after = {}};
  for (std::size_t b = 0; b < p.rows; ++b) {
    reference::Seen seen;
    for (std::size_t k = 0; k < p.width && !p.before.empty(); ++k) {
      const std::int32_t stored = p.before[b * p.width + k];
      if (stored > 0) seen.push_back(stored - 1);
    }
    const auto length =
        p.lengths.empty() ? p.steps : static_cast<std::size_t>(std::max(p.lengths[b], 0));
    for (std::size_t t = 0; t < std::min(length, p.steps); ++t) {
      if (!p.reset.empty() && p.reset[t * p.rows + b] != 0) seen.clear();
      seen.push_back(p.token[t * p.rows + b]);
      const auto context = reference::context(seen, p.width, kNone);
      std::copy(context.begin(), context.end(), &s.context[(t * p.rows + b) * p.width]);
    }
    for (const std::int32_t id : reference::context(seen, p.width, kNone)) {
      s.last.push_back(id);
      s.after.push_back(id == kNone ? 0 : id + 1);
    }
  }
  return s;
}

Problem random_problem(std::size_t steps, std::size_t rows, std::size_t width, unsigned options) {
  std::mt19937 random(static_cast<unsigned>(steps * 7 + rows * 3 + width));
  const auto below = [&](unsigned bound) { return static_cast<std::int32_t>(random() % bound); };
  Problem p{.steps = steps, .rows = rows, .width = width};
  for (std::size_t i = 0; i < steps * rows; ++i) {
    p.token.push_back(below(1000));
    if ((options & 1U) != 0) p.reset.push_back(below(4) == 0 ? 1 : 0);
  }
  for (std::size_t b = 0; b < rows; ++b) {
    if ((options & 2U) != 0) p.lengths.push_back(below(static_cast<unsigned>(steps) + 4) - 2);
    const auto read = static_cast<std::size_t>(below(static_cast<unsigned>(width) + 1));
    for (std::size_t k = 0; k < width && (options & 4U) != 0; ++k) {
      p.before.push_back(k + read < width ? 0 : 1 + below(1000));
    }
  }
  return p;
}

// Leg 1: one row, worked by hand.
TEST(ContextWindows, LookBackOverTheWindowsBeginAndNotOverARestart) {
  for (const Device& device : test::devices()) {
    const Solution got = solve(device, {.steps = 4,
                                        .rows = 1,
                                        .width = 3,
                                        .token = {10, 11, 12, 13},
                                        .reset = {0, 0, 1, 0},
                                        .before = {0, 5, 6}});
    EXPECT_EQ(got.context, (Ids{4, 5, 10, 5, 10, 11, kNone, kNone, 12, kNone, 12, 13}));
    EXPECT_EQ(got.last, (Ids{kNone, 12, 13}));
    EXPECT_EQ(got.after, (Ids{0, 13, 14}));
  }
}

// Leg 3: every device against the oracle, with each option and without. Windows shorter than the
// context, empty ones, and more items than one task or block has.
TEST(ContextWindows, SweepEqualsTheOracle) {
  struct Size {
    std::size_t steps, rows, width;
  };
  for (const auto& [steps, rows, width] :
       {Size{0, 3, 2}, Size{1, 1, 1}, Size{2, 5, 4}, Size{7, 33, 3}, Size{9, 0, 2},
        Size{64, 16, 10}, Size{300, 120, 2}}) {
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
TEST(ContextWindows, RefusesWhatItsContractRefuses) {
  const Buffer<std::int32_t> numbers(Cpu{}, 100);
  std::int32_t* const data = numbers.view(100).data;
  const ContextWindows good{.token = {data, {2, 3}},
                            .reset = {data, {2, 3}},
                            .lengths = {data, {3}},
                            .before = {data, {3, 4}},
                            .width = 4,
                            .context = {data, {2, 3, 4}},
                            .last = {data, {3, 4}},
                            .after = {data, {3, 4}}};
  EXPECT_NO_THROW(good.check());
  const auto refused = [&](const auto& change) {
    ContextWindows bad = good;
    change(bad);
    EXPECT_THROW(bad.check(), ShapeError);
  };
  refused([](auto& op) { op.width = 0; });
  refused([](auto& op) { op.width = 3; });
  refused([](auto& op) { op.reset.extent = {3, 3}; });
  refused([](auto& op) { op.reset.extent = {2, 2}; });
  refused([](auto& op) { op.lengths.extent = {2}; });
  refused([](auto& op) { op.before.extent = {2, 4}; });
  refused([](auto& op) { op.context.extent = {1, 3, 4}; });
  refused([](auto& op) { op.context.extent = {2, 2, 4}; });
  refused([](auto& op) { op.context.extent = {2, 3, 5}; });
  refused([](auto& op) { op.last.extent = {3, 5}; });
  refused([](auto& op) { op.after.extent = {2, 4}; });
}

// Leg 5: a long window is two short ones, of which the second goes on where the first ended.
TEST(ContextWindows, TwoWindowsAreOne) {
  for (const Device& device : test::devices()) {
    for (const std::size_t cut : {1U, 2U, 5U}) {
      const Problem all = random_problem(6, 7, 4, 5);
      const auto part = [&](std::size_t first, std::size_t end) {
        Problem p = all;
        const auto take = [&](const Ids& from) {
          return Ids(from.begin() + static_cast<std::ptrdiff_t>(first * all.rows),
                     from.begin() + static_cast<std::ptrdiff_t>(end * all.rows));
        };
        p.steps = end - first, p.token = take(all.token), p.reset = take(all.reset);
        return p;
      };
      const Solution whole = solve(device, all), first = solve(device, part(0, cut));
      Problem rest = part(cut, 6);
      rest.before = first.after;
      const Solution second = solve(device, rest);
      Ids both = first.context;
      both.insert(both.end(), second.context.begin(), second.context.end());
      EXPECT_EQ(both, whole.context);
      EXPECT_EQ(second.last, whole.last);
      EXPECT_EQ(second.after, whole.after);
    }
  }
}

}  // namespace
}  // namespace carousel
