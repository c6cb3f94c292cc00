#include "tests/support/cudnn.h"

#include <numeric>

#include "tests/emulation/tests/toys.h"

// The wrapper of cuDNN's LSTM against the emulated library, which computes no LSTM: what it must
// get right is the order of the calls, the sizes and the places of the parameters.

namespace carousel {
namespace {

using test::CudnnLstm;
using test::CudnnLstmTensors;
using test::CudnnType;
using test::device;
using test::failure_of;
using test::Words;

constexpr std::int64_t kT = 2, kB = 3, kI = 4, kH = 5;

CudnnLstm layer(CudnnType type, test::CudnnAlgorithm algorithm = test::CudnnAlgorithm::standard,
                bool packed = false) {
  return CudnnLstm(
      test::Cudnn(device()),
      {.T = kT, .B = kB, .I = kI, .H = kH, .algorithm = algorithm, .type = type, .packed = packed});
}

/// Parameters that differ from each other and are exact in every type.
test::LstmParameters parameters() {
  auto numbered = [next = 0.0](std::int64_t size) mutable {
    std::vector<double> values(static_cast<std::size_t>(size));
    std::iota(values.begin(), values.end(), next);
    next += static_cast<double>(size);
    return values;
  };
  return {.weight_ih = numbered(4 * kH * kI),
          .weight_hh = numbered(4 * kH * kH),
          .bias_ih = numbered(4 * kH),
          .bias_hh = numbered(4 * kH)};
}

/// Device memory for a layer in f32.
struct Storage {
  Words x{kT * kB * kI}, state{kB * kH}, units{kT * kB * kH};
  CudnnLstmTensors tensors{.x = x.data(),
                           .h0 = state.data(),
                           .c0 = state.data(),
                           .d_h = units.data(),
                           .d_h_last = state.data(),
                           .d_c_last = state.data(),
                           .h = units.data(),
                           .h_last = state.data(),
                           .c_last = state.data(),
                           .d_x = x.data(),
                           .d_h0 = state.data(),
                           .d_c0 = state.data()};
};

TEST(Cudnn, EveryParameterKeepsItsPlace) {
  for (const CudnnType type : {CudnnType::f32, CudnnType::bf16, CudnnType::fp16}) {
    const Storage storage;  // large enough for the half types too
    CudnnLstm lstm = layer(type);
    const test::LstmParameters wanted = parameters();
    lstm.set_parameters(wanted);
    lstm.forward(storage.tensors);
    lstm.backward(storage.tensors);
    const test::LstmParameters got = lstm.parameter_gradients();
    EXPECT_EQ(got.weight_ih, wanted.weight_ih) << name(type);
    EXPECT_EQ(got.weight_hh, wanted.weight_hh) << name(type);
    EXPECT_EQ(got.bias_ih, wanted.bias_ih) << name(type);
    EXPECT_EQ(got.bias_hh, wanted.bias_hh) << name(type);
    lstm.clear_parameter_gradients();
    EXPECT_EQ(lstm.parameter_gradients().bias_hh, std::vector<double>(4 * kH));
  }
}

TEST(Cudnn, ParametersLieWhereTheLibrarySays) {
  CudnnLstm lstm = layer(CudnnType::f32);
  const test::LstmParameters wanted = parameters();
  lstm.set_parameters(wanted);
  std::vector<float> space(lstm.parameters().bytes() / sizeof(float));
  copy_to_host(device(), space.data(), lstm.parameters().data(), space.size() * sizeof(float));
  EXPECT_EQ(space.front(), wanted.weight_hh[3 * kH * kH]);  // the library's order is reversed
  EXPECT_EQ(space.back(), wanted.bias_ih[kH - 1]);
}

TEST(Cudnn, AStepCanBeRepeatedAndABackwardPassNeedsAForwardPass) {
  const Storage storage;
  CudnnLstm lstm = layer(CudnnType::f32);
  EXPECT_EQ(failure_of([&] {
              for (int step = 0; step < 2; ++step) {
                lstm.forward(storage.tensors);
                lstm.backward(storage.tensors);
              }
            }),
            "nothing");
  EXPECT_CONTAINS(failure_of([&] { lstm.backward(storage.tensors); }),
                  "a pass without the pass before it");
}

TEST(Cudnn, ATensorThatIsTooSmallIsReported) {
  Storage storage;
  storage.tensors.d_x = storage.state.data();
  CudnnLstm lstm = layer(CudnnType::f32);
  lstm.forward(storage.tensors);
  EXPECT_CONTAINS(failure_of([&] { lstm.backward(storage.tensors); }),
                  "a tensor is not device memory of its size");
}

TEST(Cudnn, ARefusalNamesTheCallTheStatusAndTheReason) {
  const auto refusal = [](bool packed) -> std::string {
    try {
      layer(CudnnType::f32, test::CudnnAlgorithm::persist_dynamic, packed);
    } catch (const test::CudnnError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(refusal(false),
            "cudnnGetRNNTempSpaceSizes: CUDNN_STATUS_NOT_SUPPORTED: PERSIST_DYNAMIC: padded");
  EXPECT_EQ(refusal(true), "");
}

}  // namespace
}  // namespace carousel
