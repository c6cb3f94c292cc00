#include "kernels/scheduled_tokens/scheduled_tokens.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/reference/scheduled_tokens.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::Buffer;
using Tokens = std::vector<std::int32_t>;
using Decay = TeacherForcing::Decay;

struct Case {
  TeacherForcing forcing;
  std::int64_t step = 0, first = 0;
};

/// Given tokens are 100 and more, own tokens the same without the 100.
Tokens choose(const Device& device, std::size_t count, const Case& c, std::int32_t own_0 = 0) {
  Tokens given, mine;
  for (std::size_t n = 0; n < count; ++n) {
    mine.push_back(static_cast<std::int32_t>(n % 90) + (n == 0 ? own_0 : 0));
    given.push_back(100 + static_cast<std::int32_t>(n % 90));
  }
  const Buffer<std::int32_t> a(device, given), b(device, mine), out(device, count);
  const Buffer<std::int64_t> step(device, std::vector<std::int64_t>{c.step});
  run(device, ScheduledTokens{.given = a.view(count),
                              .own = b.view(count),
                              .forcing = c.forcing,
                              .random = {.seed = 11, .stream = 3, .step = step.view(1)},
                              .first = c.first,
                              .token = out.view(count)});
  return out.read();
}

std::int64_t given_count(const Tokens& tokens) {
  std::int64_t count = 0;
  for (const std::int32_t token : tokens) count += token >= 100 ? 1 : 0;
  return count;
}

// Leg 1: by hand. Halfway of ten steps half of the tokens; of K = 1 at step 0, 1/(1 + 1).
TEST(ScheduledTokens, SharesWorkedByHand) {
  const auto share = [](const TeacherForcing& forcing, std::int64_t step) {
    return given_share(forcing, step, [](double x) { return std::exp(x); });
  };
  EXPECT_EQ(share({.decay = Decay::linear, .steps = 10}, 5), 0.5);
  EXPECT_EQ(share({.decay = Decay::linear, .steps = 10}, 20), 0);
  EXPECT_EQ(share({.decay = Decay::linear, .steps = 10, .least = 0.25}, 9), 0.25);
  EXPECT_EQ(share({.decay = Decay::exponential, .steps = 10}, 0), 1);
  EXPECT_DOUBLE_EQ(share({.decay = Decay::exponential, .steps = 10}, 20), std::exp(-2));
  EXPECT_EQ(share({.decay = Decay::inverse_sigmoid, .steps = 1}, 0), 0.5);
  EXPECT_EQ(share({.decay = Decay::inverse_sigmoid, .steps = 1}, 100'000), 0);
}

// Legs 2 and 3: no gradient flows; what is drawn has the paper's share, and is the same on all devices,
// of every size.
TEST(ScheduledTokens, AsManyAreGivenAsThePaperSays) {
  constexpr std::size_t kCount = 3000;
  struct Row {
    Decay decay;
    std::string name;
    double steps, k;
  };
  for (const auto& [decay, name, steps, k] :
       {Row{Decay::linear, "linear", 40, 40},
        Row{Decay::exponential, "exponential", 20, std::exp(-0.05)},
        Row{Decay::inverse_sigmoid, "inverse sigmoid", 9, 9}}) {
    for (const std::int64_t step : {0, 1, 15, 39, 60}) {
      const Case c{{.decay = decay, .steps = steps, .least = 0.1}, step};
      const double share = reference::epsilon(name, k, static_cast<double>(step), 0.1);
      const Tokens want = choose(Cpu{}, kCount, c);
      for (const Device& device : test::devices()) {
        EXPECT_EQ(choose(device, kCount, c), want);
      }
      const auto given = static_cast<double>(given_count(want));
      EXPECT_LT(reference::deviations(given, kCount, share), 4) << name << ", step " << step;
    }
  }
  for (const Device& device : test::devices()) {
    const Case half{{.steps = 10}, 5};
    for (const std::size_t count : {0, 1, 31, 33, 127, 129}) {
      EXPECT_EQ(choose(device, count, half), choose(Cpu{}, count, half)) << count;
    }
  }
}

// Leg 4: the contract on bad input.
TEST(ScheduledTokens, RefusesWhatItsContractRefuses) {
  const Buffer<std::int32_t> tokens(Cpu{}, 4);
  const Buffer<std::int64_t> step(Cpu{}, 1);
  const auto check = [&](std::int64_t own, std::int64_t token, const TeacherForcing& forcing,
                         bool steps = true) {
    ScheduledTokens{.given = tokens.view(3),
                    .own = {tokens.view(4).data, {own}},
                    .forcing = forcing,
                    .random = {.step = steps ? step.view(1) : View<std::int64_t, 1>{}},
                    .token = {tokens.view(4).data, {token}}}
        .check();
  };
  EXPECT_NO_THROW(check(3, 3, {}));
  EXPECT_THROW(check(4, 3, {}), ShapeError);
  EXPECT_THROW(check(3, 2, {}), ShapeError);
  EXPECT_THROW(check(3, 3, {}, false), ShapeError);
  EXPECT_THROW(check(3, 3, {.steps = 0}), ConfigError);
  EXPECT_THROW(check(3, 3, {.steps = NAN}), ConfigError);
  EXPECT_THROW(check(3, 3, {.least = -0.1}), ConfigError);
  EXPECT_THROW(check(3, 3, {.least = 1.5}), ConfigError);
}

// Leg 5: invariants.
TEST(ScheduledTokens, AllOrNoneAtTheEndsAndPartsDrawAsTheWhole) {
  for (const Device& device : test::devices()) {
    const Case all{{.steps = 10, .least = 1}, 50}, none{{.steps = 10}, 10}, half{{.steps = 10}, 5};
    EXPECT_EQ(given_count(choose(device, 200, all)), 200);
    EXPECT_EQ(given_count(choose(device, 200, none)), 0);
    EXPECT_EQ(choose(device, 200, none, -1)[0], 100) << "no token of its own";
    Case behind = half;
    behind.first = 90;
    const Tokens whole = choose(device, 180, half), part = choose(device, 90, behind);
    EXPECT_EQ(Tokens(whole.begin() + 90, whole.end()), part);
    Case later = half;
    later.step = 6;
    EXPECT_NE(choose(device, 200, half), choose(device, 200, later));
  }
}

}  // namespace
}  // namespace carousel
