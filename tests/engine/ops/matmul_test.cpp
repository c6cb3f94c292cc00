#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <vector>

#include "engine/ops.h"
#include "kernels/matmul/matmul.h"
#include "kernels/reduce/reduce.h"
#include "tests/reference/matmul.h"
#include "tests/reference/reduce.h"
#include "tests/support/buffer.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::as_double;
using test::stored;

std::vector<double> numbers(std::int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<double> number(-1, 1);
  std::vector<double> values(static_cast<std::size_t>(count));
  for (double& v : values) v = number(engine);
  return values;
}

template <class T>
Tensor tensor(const Device& device, Shape shape, const std::vector<double>& values) {
  return test::tensor_of(device, shape, stored<T>(values));
}

template <class T>
std::vector<double> read(const Tensor& t) {
  return as_double(test::read<T>(t));
}

/// Σ weight·y, the gradient of which is `weight`: makes a number of an op's output.
template <class T>
double seed(const Var& y, const std::vector<double>& weight) {
  if (y.needs_gradient()) {
    copy_from_host(y.gradient().tensor, stored<T>(weight).data());
  }
  const auto values = read<T>(y.value());
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) sum += weight[i] * values[i];
  return sum;
}

using Op = std::function<Var(const std::vector<Var>&)>;

/// Compares every gradient that the tape gives in double with central differences.
void check_gradients(const std::vector<Shape>& shapes, std::int64_t outputs, const Op& op) {
  const Device cpu = Cpu{};
  std::vector<Tensor> values, gradients;
  for (const Shape& s : shapes) {
    values.push_back(
        tensor<double>(cpu, s, numbers(s.size(), 41U + static_cast<unsigned>(s.rows()))));
    gradients.push_back(
        tensor<double>(cpu, s, std::vector<double>(static_cast<std::size_t>(s.size()), 1e9)));
  }
  const std::vector<double> weight = numbers(outputs, 42);
  const auto loss = [&](bool recording) {
    Arena arena(cpu);
    Tape tape(arena, recording);
    std::vector<Var> inputs;
    for (std::size_t i = 0; i < values.size(); ++i)
      inputs.push_back(tape.parameter(values[i], gradients[i]));
    const double sum = seed<double>(op(inputs), weight);
    tape.backward();
    return sum;
  };
  loss(true);
  constexpr double kStep = 1e-4;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto x = values[i].mutable_view<double, 1>();
    const auto got = gradients[i].view<double, 1>();
    for (std::int64_t j = 0; j < x.size(); ++j) {
      const double kept = x(j);
      x(j) = kept + kStep;
      const double above = loss(false);
      x(j) = kept - kStep;
      const double below = loss(false);
      x(j) = kept;
      EXPECT_NEAR(got(j), (above - below) / (2 * kStep), 1e-9)
          << "input " << i << ", element " << j;
    }
  }
}

TEST(MatmulRule, GradientsMatchCentralDifferences) {
  check_gradients({{3, 4}, {4, 5}}, 15,
                  [](const std::vector<Var>& x) { return matmul(x[0], x[1]); });
  check_gradients({{3, 4}, {5, 4}}, 15,
                  [](const std::vector<Var>& x) { return matmul(x[0], x[1], true); });
  // A value that enters twice: both writers reach the same gradient.
  check_gradients({{4, 4}}, 16, [](const std::vector<Var>& x) { return matmul(x[0], x[0]); });
}

TEST(LinearRule, GradientsMatchCentralDifferences) {
  check_gradients({{2, 3, 4}, {5, 4}, {5}}, 30,
                  [](const std::vector<Var>& x) { return linear(x[0], x[1], x[2]); });
}

template <class T>
void linear_matches_oracle(const Device& device) {
  constexpr std::int64_t kSteps = 3, kBatch = 20, kIn = 17, kOut = 9, kRows = kSteps * kBatch;
  using Acc = Accumulator<T>;
  const Tensor x = tensor<T>(device, {kSteps, kBatch, kIn}, numbers(kRows * kIn, 51));
  const Tensor weight = tensor<T>(device, {kOut, kIn}, numbers(kOut * kIn, 52));
  const Tensor bias = tensor<Acc>(device, {kOut}, numbers(kOut, 53));
  // Parameters' gradients are of the accumulator's type, whatever the type of the values.
  const Tensor d_x(device, {kSteps, kBatch, kIn}, dtype_of<T>());
  const Tensor d_weight(device, {kOut, kIn}, dtype_of<Acc>());
  const Tensor d_bias(device, {kOut}, dtype_of<Acc>());

  Arena arena(device);
  Tape tape(arena, true);
  const Var y = linear(tape.parameter(x, d_x), tape.parameter(weight, d_weight),
                       tape.parameter(bias, d_bias));
  ASSERT_EQ(y.shape(), (Shape{kSteps, kBatch, kOut}));
  const std::vector<double> d_y = as_double(stored<T>(numbers(kRows * kOut, 54)));
  seed<T>(y, d_y);
  tape.backward();

  const reference::Matrix rows{kRows, kIn, read<T>(x)}, weights{kOut, kIn, read<T>(weight)};
  const reference::Matrix gradient{kRows, kOut, d_y};
  const auto transposed = [](reference::Matrix m) {
    m.transpose = true;
    return m;
  };
  const Tolerance& narrow = std::is_same_v<T, bf16> ? kMatmulTolerance.bf16 : kMatmulTolerance.f32;
  EXPECT_TRUE(test::close(read<T>(y.value()),
                          reference::matmul(rows, transposed(weights), read<Acc>(bias), {}),
                          narrow));
  EXPECT_TRUE(test::close(read<T>(d_x), reference::matmul(gradient, weights, {}, {}), narrow));
  EXPECT_TRUE(test::close(read<Acc>(d_weight),
                          reference::matmul(transposed(gradient), rows, {}, {}),
                          kMatmulTolerance.f32));
  EXPECT_TRUE(test::close(read<Acc>(d_bias), reference::column_sum(d_y, std::vector<double>(kOut)),
                          kColumnSumTolerance.f32));
}

TEST(LinearRule, ValuesAndGradientsMatchTheOracleOnEveryDevice) {
  for (const Device& device : test::devices()) {
    linear_matches_oracle<float>(device);
    linear_matches_oracle<bf16>(device);
  }
}

TEST(MatmulRule, InputsWithoutAGradientGetNone) {
  const Device cpu = Cpu{};
  Arena arena(cpu);
  Tape tape(arena, true);
  const Tensor x = tensor<float>(cpu, {2, 3}, numbers(6, 61));
  const Tensor w = tensor<float>(cpu, {3, 4}, numbers(12, 62));
  const Tensor d_w(cpu, {3, 4}, DType::f32);
  const Var data = tape.constant(x);
  seed<float>(matmul(data, tape.parameter(w, d_w)), numbers(8, 63));
  tape.backward();
  EXPECT_FALSE(data.d());
  EXPECT_TRUE(tape.unreached_parameters().empty());
}

}  // namespace
}  // namespace carousel
