#include "kernels/lstm_sequence/lstm_sequence.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>

#include "kernels/common/check.h"
#include "tests/kernels/lstm_sequence_problem.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel::test {
namespace {

using reference::LstmGradients;

constexpr LstmParts kAllParts{};
constexpr LstmParts kNoParts{
    .biases = false, .state = false, .resets = false, .d_h = false, .d_last = false};

template <class T>
const Tolerance& of(const Tolerances& t) {
  return std::is_same_v<T, bf16> ? t.bf16 : t.f32;
}

template <class T>
void expect_close(const LstmSolution& got, const LstmSolution& want) {
  const Tolerance& forward = of<T>(kLstmForwardTolerance);
  EXPECT_TRUE(close(got.h, want.h, forward)) << "h";
  EXPECT_TRUE(close(got.c, want.c, forward)) << "c";
  EXPECT_TRUE(close(got.gates, want.gates, forward)) << "gates";
  const auto left = named(got.d), right = named(want.d);
  for (std::size_t i = 0; i < left.size(); ++i) {
    EXPECT_TRUE(close(*left[i].second, *right[i].second, of<T>(kLstmBackwardTolerance)))
        << left[i].first;
  }
  EXPECT_TRUE(got.biases_agree);
}

// σ(±ln 3) = 3/4, 1/4; tanh ln 2 = 3/5; c0 is chosen so that c = c0/4 + 9/20 = ln 2.
TEST(LstmSequence, OneStepWorkedByHand) {
  const double ln2 = std::log(2.0), ln3 = std::log(3.0), c0 = 4 * (ln2 - 0.45);
  LstmProblem p;
  p.layer = {.T = 1, .B = 1, .I = 1, .H = 1};
  p.layer.x = {2}, p.layer.weight_ih = {ln3 / 2, -ln3 / 2, 0, 0};  // i and f from the input
  p.layer.h0 = {1}, p.layer.weight_hh = {0, 0, ln2 - 1, -1};       // g and o from the state …
  p.layer.bias_ih = {0, 0, 0.25, 0.5}, p.layer.bias_hh = {0, 0, 0.75, 0.5};  // … and the biases
  p.layer.c0 = {c0};
  p.out.d_h = {1};
  const std::vector<double> d_a{0.036, 0.06 * c0, 0.1536, 0.15};
  const Tolerance tolerance{.absolute = 2e-7};
  for (const Device& device : devices()) {
    const LstmSolution s = solve<float>(device, p);
    EXPECT_TRUE(close(s.gates, std::vector<double>{0.75, 0.25, 0.6, 0.5}, tolerance));
    EXPECT_TRUE(close(s.c, std::vector<double>{ln2}, tolerance));
    EXPECT_TRUE(close(s.h, std::vector<double>{0.3}, tolerance));
    EXPECT_TRUE(close(s.d.d_gates, d_a, tolerance));
    EXPECT_TRUE(close(s.d.d_bias, d_a, tolerance));
    EXPECT_TRUE(close(s.d.d_weight_hh, d_a, tolerance));  // h0 is 1
    EXPECT_TRUE(close(s.d.d_x, std::vector<double>{(d_a[0] - d_a[1]) * ln3 / 2}, tolerance));
    EXPECT_TRUE(close(s.d.d_h0, std::vector<double>{d_a[2] * (ln2 - 1) - d_a[3]}, tolerance));
    EXPECT_TRUE(close(s.d.d_c0, std::vector<double>{0.08}, tolerance));
  }
}

// With the forget gate open and the input gate shut, the cell and its error go round unchanged.
TEST(LstmSequence, TheErrorCarouselIsConstant) {
  LstmProblem p;
  p.layer = {.T = 300, .B = 1, .I = 1, .H = 1};
  p.layer.x.assign(p.layer.T, 1.0);
  p.layer.weight_ih = {0, 0, 1, 0}, p.layer.weight_hh = {0, 0, 1, 0};
  p.layer.bias_ih = {-100, 100, 0, -100}, p.layer.bias_hh = {0, 0, 0, 0};
  p.layer.c0 = {0.7F}, p.out.d_c_last = {0.3F};
  for (const Device& device : devices()) {
    const LstmSolution s = solve<float>(device, p);
    EXPECT_EQ(s.c.back(), p.layer.c0[0]);
    EXPECT_EQ(s.d.d_c0[0], p.out.d_c_last[0]);
  }
}

TEST(LstmSequence, TimeMayExceedAGridDimension) {
  LstmProblem p;
  p.layer = {.T = 70'000, .B = 1, .I = 1, .H = 1};
  p.layer.x.assign(p.layer.T, 0.0);
  p.layer.weight_ih = p.layer.weight_hh = {0, 0, 0, 0};
  p.layer.bias_ih = {100, 100, 0.001F, 0}, p.layer.bias_hh = {0, 0, 0, 0};
  const LstmSolution s = solve<double>(Cpu{}, p);  // counts the steps
  EXPECT_NEAR(s.c.back(), 70, 1e-3);
}

double loss(const LstmProblem& p) {
  const LstmSolution s = solve<double>(Cpu{}, p);
  const std::size_t units = p.layer.B * p.layer.H;
  double sum = 0;
  for (std::size_t n = 0; n < s.h.size(); ++n) sum += p.out.d_h[n] * s.h[n];
  for (std::size_t n = 0; n < units; ++n) {
    sum += p.out.d_h_last[n] * s.h[s.h.size() - units + n];
    sum += p.out.d_c_last[n] * s.c[s.c.size() - units + n];
  }
  return sum;
}

TEST(LstmSequence, TheBackwardPassIsTheForwardPassDifferentiated) {
  LstmProblem p = random_lstm<double>({4, 3, 2, 3}, kAllParts, 11);
  const LstmSolution s = solve<double>(Cpu{}, p);
  const auto check = [&](const char* what, std::vector<double>& values,
                         const std::vector<double>& gradient) {
    ASSERT_EQ(values.size(), gradient.size()) << what;
    for (std::size_t i = 0; i < values.size(); ++i) {
      constexpr double kStep = 1e-5;
      const double value = values[i];
      values[i] = value + kStep;
      const double above = loss(p);
      values[i] = value - kStep;
      const double below = loss(p);
      values[i] = value;
      EXPECT_NEAR(gradient[i], (above - below) / (2 * kStep), 1e-8) << what << " " << i;
    }
  };
  check("x", p.layer.x, s.d.d_x);
  check("weight_ih", p.layer.weight_ih, s.d.d_weight_ih);
  check("weight_hh", p.layer.weight_hh, s.d.d_weight_hh);
  check("bias_ih", p.layer.bias_ih, s.d.d_bias);
  check("bias_hh", p.layer.bias_hh, s.d.d_bias);
  check("h0", p.layer.h0, s.d.d_h0);
  check("c0", p.layer.c0, s.d.d_c0);
}

class LstmSequenceParity : public testing::TestWithParam<LstmSize> {};

template <class T>
void expect_parity(const LstmSize& size) {
  LstmProblem bare = random_lstm<T>(size, kNoParts, 21);
  LstmProblem full = random_lstm<T>(size, kAllParts, 22);
  LstmProblem unreset = random_lstm<T>(size, {.resets = false, .d_last = false}, 23);
  LstmProblem masked = random_lstm<T>(size, {.biases = false, .state = false, .d_h = false}, 24);
  unreset.accumulate = masked.accumulate = true;
  for (const LstmProblem* p : {&bare, &full, &unreset, &masked}) {
    const LstmSolution want = expected(*p);
    for (const Device& device : devices()) {
      SCOPED_TRACE(device_name(device));
      expect_close<T>(solve<T>(device, *p), want);
    }
  }
}

TEST_P(LstmSequenceParity, EveryDeviceMatchesTheOracleInFloat) { expect_parity<float>(GetParam()); }
TEST_P(LstmSequenceParity, EveryDeviceMatchesTheOracleInBf16) { expect_parity<bf16>(GetParam()); }

std::string size_name(const testing::TestParamInfo<LstmSize>& info) {
  const LstmSize& s = info.param;
  return fmt::format("T{}B{}I{}H{}", s.T, s.B, s.I, s.H);
}

// None, one, the sizes around a warp and around a vector, a long sequence, a real layer.
INSTANTIATE_TEST_SUITE_P(AwkwardSizes, LstmSequenceParity,
                         testing::Values(LstmSize{0, 3, 2, 5}, LstmSize{3, 0, 2, 5},
                                         LstmSize{4, 3, 0, 8}, LstmSize{2, 2, 3, 0},
                                         LstmSize{1, 1, 1, 1}, LstmSize{5, 3, 7, 5},
                                         LstmSize{2, 31, 3, 33}, LstmSize{3, 33, 5, 31},
                                         LstmSize{64, 2, 4, 12}, LstmSize{3, 17, 40, 64},
                                         LstmSize{2, 16, 128, 256}),
                         size_name);

/// The worst excess of any output, over seeded problems within the contract's conditions.
template <class T>
std::pair<double, double> worst_of_sweep() {
  double forward = 0, backward = 0;
  for (unsigned seed = 100; seed < 112; ++seed) {
    LstmSize size{1 + seed * 37 % 64, 1 + seed % 5, seed % 9, 1 + seed * 7 % 40};
    if (seed % 6 == 0) size = {2, 16, 128, 256};  // long sums
    const LstmProblem p = random_lstm<T>(
        size, {.biases = seed % 2 == 0, .state = seed % 3 != 0, .resets = seed % 4 == 1}, seed);
    const LstmSolution want = expected(p);
    for (const Device& device : devices()) {
      const LstmSolution got = solve<T>(device, p);
      const Tolerance& t = of<T>(kLstmForwardTolerance);
      forward = std::max({forward, worst_excess(got.h, want.h, t), worst_excess(got.c, want.c, t),
                          worst_excess(got.gates, want.gates, t)});
      const auto left = named(got.d), right = named(want.d);
      for (std::size_t i = 0; i < left.size(); ++i) {
        backward = std::max(backward, worst_excess(*left[i].second, *right[i].second,
                                                   of<T>(kLstmBackwardTolerance)));
      }
    }
  }
  return {forward, backward};
}

template <class T>
void expect_recorded_worst() {
  const auto [forward, backward] = worst_of_sweep<T>();
  expect_recorded(forward, of<T>(kLstmForwardTolerance));
  expect_recorded(backward, of<T>(kLstmBackwardTolerance));
}

TEST(LstmSequence, SweepStaysWithinTheRecordedWorstInFloat) { expect_recorded_worst<float>(); }
TEST(LstmSequence, SweepStaysWithinTheRecordedWorstInBf16) { expect_recorded_worst<bf16>(); }

}  // namespace
}  // namespace carousel::test
