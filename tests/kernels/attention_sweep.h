#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "tests/kernels/attention_problem.h"
#include "tests/support/close.h"
#include "tests/support/types.h"

// Random problems of attention, judged by the oracle on every device.
namespace carousel::test {

struct AttentionCase {
  std::size_t queries, keys, batch;
  AttentionRule rule;
  bool with_lengths = false;
  float drop_probability = 0;
  std::size_t bias_heads = 0;
};

struct WorstOfAttention {
  double forward = 0, backward = 0;
};

template <class T>
void sweep_case(const AttentionCase& c, bool accumulate, WorstOfAttention& worst) {
  AttentionProblem problem{.queries = c.queries, .keys = c.keys, .batch = c.batch, .rule = c.rule};
  problem.drop_probability = c.drop_probability, problem.accumulate = accumulate;
  problem.bias_heads = c.bias_heads;
  const AttentionProblem p = random_attention<T>(problem, c.with_lengths);
  const AttentionSolution want = oracle(p);
  const Tolerance &forward = of<T>(kAttentionForwardTolerance),
                  &backward = of<T>(kAttentionBackwardTolerance);
  for (const Device& device : devices()) {
    SCOPED_TRACE(device_name(device) + ", " + std::to_string(c.queries) + " queries, " +
                 std::to_string(c.keys) + " keys, width " + std::to_string(c.rule.head_width));
    const AttentionSolution got = solve<T>(device, p);
    EXPECT_TRUE(close(got.lse, want.lse, kAttentionForwardTolerance.f32));
    const auto judge = [](const std::vector<double>& have, const std::vector<double>& truth,
                          const Tolerance& tolerance, double& most) {
      EXPECT_TRUE(close(have, truth, tolerance));
      most = std::max(most, worst_excess(have, truth, tolerance));
    };
    judge(got.y, want.y, forward, worst.forward);
    judge(got.d_q, want.d_q, backward, worst.backward);
    judge(got.d_k, want.d_k, backward, worst.backward);
    judge(got.d_v, want.d_v, backward, worst.backward);
  }
}

template <class T>
WorstOfAttention sweep_attention(const std::vector<AttentionCase>& cases) {
  WorstOfAttention worst;
  for (const AttentionCase& c : cases) {
    sweep_case<T>(c, false, worst);
    if (c.queries <= 66) sweep_case<T>(c, true, worst);
  }
  return worst;
}

}  // namespace carousel::test
