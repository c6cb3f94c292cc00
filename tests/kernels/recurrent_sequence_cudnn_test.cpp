#include <fmt/format.h>
#include <gtest/gtest.h>

#include <tuple>

#include "kernels/recurrent_sequence/recurrent_sequence.h"
#include "tests/kernels/recurrent_sequence_run.h"
#include "tests/support/close.h"
#include "tests/support/cudnn.h"
#include "tests/support/device.h"

// A second judge beside the oracle, on the device itself: cuDNN is given the same layer and the same
// gradients, and both must say the same.

namespace carousel::test {
namespace {

/// Everything cuDNN says of a problem.
struct CudnnSolution {
  std::vector<double> h, h_last, c_last, d_x, d_h0, d_c0;
  LstmParameters gradients;
};

/// A tensor of cuDNN's type on the device.
class Tensor {
 public:
  Tensor(const Device& device, CudnnType type, const std::vector<double>& values)
      : type_(type), memory_(device, encode(type, values)) {}
  Tensor(const Device& device, CudnnType type, std::size_t count)
      : Tensor(device, type, std::vector<double>(count, std::nan(""))) {}
  std::byte* data() const { return memory_.view(0).data; }
  std::vector<double> read() const { return decode(type_, memory_.read()); }

 private:
  CudnnType type_;
  Buffer<std::byte> memory_;
};

CudnnSolution solve_by_cudnn(const Cuda& cuda, const RecurrentProblem& p, CudnnAlgorithm algorithm,
                             CudnnType type, bool packed) {
  const auto n = [](std::size_t number) { return static_cast<std::int64_t>(number); };
  const reference::Layer& l = p.layer;
  CudnnLstm layer(Cudnn(cuda), {.T = n(l.T),
                                .B = n(l.B),
                                .I = n(l.I),
                                .H = n(l.H),
                                .algorithm = algorithm,
                                .type = type,
                                .packed = packed});
  layer.set_parameters({l.weight_ih, l.weight_hh, l.bias_ih, l.bias_hh});
  layer.clear_parameter_gradients();

  const Device device = cuda;
  const std::size_t units = l.T * l.B * l.H, state = l.B * l.H;
  const Tensor x(device, type, l.x), h0(device, type, l.initial[0]), c0(device, type, l.initial[1]);
  const Tensor d_h(device, type, p.out.d_h), d_h_last(device, type, p.out.d_last[0]);
  const Tensor d_c_last(device, type, p.out.d_last[1]), h(device, type, units);
  const Tensor h_last(device, type, state), c_last(device, type, state);
  const Tensor d_x(device, type, l.x.size()), d_h0(device, type, state), d_c0(device, type, state);
  const CudnnLstmTensors tensors{.x = x.data(),
                                 .h0 = h0.data(),
                                 .c0 = c0.data(),
                                 .d_h = d_h.data(),
                                 .d_h_last = d_h_last.data(),
                                 .d_c_last = d_c_last.data(),
                                 .h = h.data(),
                                 .h_last = h_last.data(),
                                 .c_last = c_last.data(),
                                 .d_x = d_x.data(),
                                 .d_h0 = d_h0.data(),
                                 .d_c0 = d_c0.data()};
  layer.forward(tensors);
  layer.backward(tensors);
  return {.h = h.read(),
          .h_last = h_last.read(),
          .c_last = c_last.read(),
          .d_x = d_x.read(),
          .d_h0 = d_h0.read(),
          .d_c0 = d_c0.read(),
          .gradients = layer.parameter_gradients()};
}

/// cuDNN keeps all tensors in one type, we keep these wider: so both are given what it can hold.
template <class T>
RecurrentProblem problem_for_cudnn(const RecurrentSize& size, unsigned seed) {
  RecurrentProblem p = random_problem<T>(cell_kind("lstm"), size, {.resets = false}, seed);
  for (auto* wide : {&p.layer.bias_ih, &p.layer.bias_hh, &p.layer.initial[1], &p.out.d_last[1]}) {
    for (double& v : *wide) v = static_cast<double>(static_cast<T>(v));
  }
  return p;
}

// cuDNN's functions and the order of its sums are its own: it promises no accuracy, and in bf16 it
// rounds gates and states that we keep as float. A swapped gate or a missing bias is off by 0.1.
constexpr Tolerances kForward{.f32 = {.absolute = 2e-5, .relative = 2e-5},
                              .bf16 = {.absolute = 2e-2, .relative = 2e-2}};
constexpr Tolerances kBackward{.f32 = {.absolute = 1e-4, .relative = 1e-4},
                               .bf16 = {.absolute = 1e-1, .relative = 5e-2}};

/// Ours beside cuDNN's; where they differ, who is how far from the oracle.
void expect_agreement(const char* what, const std::vector<double>& ours,
                      const std::vector<double>& theirs, const std::vector<double>& oracle,
                      const Tolerance& tolerance) {
  EXPECT_TRUE(close(ours, theirs, tolerance))
      << what << "; from the oracle, in tolerances: ours " << worst_excess(ours, oracle, tolerance)
      << ", cuDNN " << worst_excess(theirs, oracle, tolerance);
}

template <class T>
void expect_agreement(const RecurrentProblem& p, const CudnnSolution& theirs) {
  constexpr bool kHalf = std::is_same_v<T, bf16>;
  const Tolerance& forward = kHalf ? kForward.bf16 : kForward.f32;
  const Tolerance& backward = kHalf ? kBackward.bf16 : kBackward.f32;
  const RecurrentSolution ours = solve<T>(*cuda_device(), p), oracle = expected(p);
  expect_agreement("h", ours.s.state[0], theirs.h, oracle.s.state[0], forward);
  expect_agreement("h_last", ours.s.last[0], theirs.h_last, oracle.s.last[0], forward);
  expect_agreement("c_last", ours.s.last[1], theirs.c_last, oracle.s.last[1], forward);
  const reference::LayerGradients &d = ours.d, &want = oracle.d;
  expect_agreement("d_x", d.d_x, theirs.d_x, want.d_x, backward);
  expect_agreement("d_h0", d.d_initial[0], theirs.d_h0, want.d_initial[0], backward);
  expect_agreement("d_c0", d.d_initial[1], theirs.d_c0, want.d_initial[1], backward);
  const LstmParameters& g = theirs.gradients;
  expect_agreement("d_weight_ih", d.d_weight_ih, g.weight_ih, want.d_weight_ih, backward);
  expect_agreement("d_weight_hh", d.d_weight_hh, g.weight_hh, want.d_weight_hh, backward);
  expect_agreement("d_bias_ih", d.d_bias_ih, g.bias_ih, want.d_bias_ih, backward);
  expect_agreement("d_bias_hh", d.d_bias_hh, g.bias_hh, want.d_bias_hh, backward);
}

using Case = std::tuple<CudnnAlgorithm, RecurrentSize>;
class RecurrentSequenceCudnn : public testing::TestWithParam<Case> {
 protected:
  /// cuDNN's answer. Skips where an algorithm takes this layer under neither name of its layout.
  template <class T>
  void judge(CudnnType type) {
    CAROUSEL_SKIP_WITHOUT_CUDA();
    if (!cudnn_missing().empty()) GTEST_SKIP() << "no cuDNN: " << cudnn_missing();
    const auto& [algorithm, size] = GetParam();
    const RecurrentProblem p = problem_for_cudnn<T>(size, 31);
    const auto& cuda = std::get<Cuda>(*cuda_device());
    if (cuda.name() == "cuda (emulated)") GTEST_SKIP() << "the emulated cuDNN computes no LSTM";
    std::string refusals;
    for (const bool packed : {false, true}) {
      try {
        expect_agreement<T>(p, solve_by_cudnn(cuda, p, algorithm, type, packed));
        return;
      } catch (const CudnnError& refusal) {
        refusals += fmt::format("{}: {}; ", packed ? "packed" : "padded", refusal.what());
      }
    }
    RecordProperty("refused", refusals);
    if (algorithm == CudnnAlgorithm::standard) FAIL() << refusals;
    GTEST_SKIP() << "cuDNN refuses: " << refusals;
  }
};

TEST_P(RecurrentSequenceCudnn, AgreesInFloat) { judge<float>(CudnnType::f32); }
TEST_P(RecurrentSequenceCudnn, AgreesInBf16) { judge<bf16>(CudnnType::bf16); }

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const auto& [algorithm, s] = info.param;
  return fmt::format("{}_T{}B{}I{}H{}", name(algorithm), s.T, s.B, s.I, s.H);
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, RecurrentSequenceCudnn,
    testing::Combine(testing::ValuesIn(kCudnnAlgorithms),
                     testing::Values(RecurrentSize{1, 1, 1, 1}, RecurrentSize{5, 3, 7, 5},
                                     RecurrentSize{3, 33, 5, 31}, RecurrentSize{64, 2, 4, 12},
                                     RecurrentSize{3, 17, 40, 64}, RecurrentSize{4, 8, 128, 128})),
    case_name);

}  // namespace
}  // namespace carousel::test
