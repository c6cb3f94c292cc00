// A recurrent layer whose steps the caller loops over: the values and gradients of recurrent_sequence(),
// but one product for each weight's gradient.
#include "engine/ops/recurrent_loop.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/common/journal.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

constexpr std::int64_t kSteps = 4, kBatch = 3, kInput = 2, kWidth = 5;
constexpr Tolerance kOtherOrder{.absolute = 2e-6, .relative = 2e-6};

/// What differs between cases.
struct Case {
  std::string cell = "lstm";
  bool initial = true;       ///< states are given
  bool constant_x = false;   ///< neither x nor states need a gradient
  bool penultimate = false;  ///< no gradient comes from the last step
  int masked = 0;            ///< weight_hh is another value from this step on
};

/// A loop, each of whose steps reads h of the one before, and all gradients.
class Loop {
 public:
  Loop(const Device& device, const Case& c) : device_(device), case_(c) {
    const std::int64_t gates = cell_kind(c.cell)->gates * kWidth;
    weights_ = {.weight_ih = leaf({gates, kInput + kWidth}),
                .weight_hh = leaf({gates, kWidth}),
                .bias_ih = leaf({gates}),
                .bias_hh = leaf({gates})};
    for (int s = 0; s < cell_kind(c.cell)->states; ++s) {
      const Shape shape{kBatch, kWidth};
      states_.push_back(!c.initial ? Var{} : c.constant_x ? constant(shape) : leaf(shape));
    }
  }

  void run(bool summed) {
    RecurrentLoop loop;
    Var fed = constant({1, kBatch, kWidth});
    for (int t = 0; t < kSteps; ++t) {
      const Shape shape{1, kBatch, kInput};
      Var x = case_.constant_x ? constant(shape) : leaf(shape);
      if (t == 0 || !case_.constant_x)
        x = concatenate(x, fed);
      else
        x = concatenate(x, constant({1, kBatch, kWidth}));
      RecurrentParameters weights = weights_;
      if (case_.masked > 0 && t >= case_.masked)
        weights.weight_hh = leaf(weights.weight_hh.shape());
      const RecurrentOutput y =
          summed ? loop.step(cell_kind(case_.cell), x, weights, states_, {})
                 : recurrent_sequence(cell_kind(case_.cell), x, weights, states_, {});
      if (case_.constant_x) {
        for (Var& state : states_) state = Var{};
      } else {
        states_ = y.last;
      }
      fed = y.h;
      outputs_.push_back(y.h);
    }
  }
  std::vector<std::vector<float>> gradients() {
    for (const Var& y : outputs_) {
      if (case_.penultimate && &y == &outputs_.back()) break;
      copy_from_host(y.gradient().tensor, numbers(y.shape().size()).data());
    }
    tape_.backward();
    for (const Tensor& unreached : tape_.unreached_parameters()) zero(unreached);
    std::vector<std::vector<float>> result;
    for (const Tensor& g : gradients_) result.push_back(read(g));
    return result;
  }
  std::vector<float> values() const { return read(outputs_.back().value()); }
  std::size_t unreached() {
    tape_.backward();
    return tape_.unreached_parameters().size();
  }
  bool finite() { return tape_.first_non_finite().empty(); }

 private:
  std::vector<float> numbers(std::int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& v : values) v = static_cast<float>(++drawn_ * 7 % 23) / 23 - 0.5F;
    return values;
  }
  Tensor tensor(const Shape& shape) {
    Tensor result(device_, shape, DType::f32);
    copy_from_host(result, numbers(shape.size()).data());
    return result;
  }
  Var constant(const Shape& shape) { return tape_.constant(tensor(shape)); }
  Var leaf(const Shape& shape) {
    gradients_.emplace_back(device_, shape, DType::f32);
    return tape_.parameter(tensor(shape), gradients_.back());
  }
  static std::vector<float> read(const Tensor& tensor) {
    std::vector<float> values(static_cast<std::size_t>(tensor.size()));
    copy_to_host(tensor, values.data());
    return values;
  }

  Device device_;
  Case case_;
  Arena arena_{device_};
  Tape tape_{arena_, true};
  int drawn_ = 0;
  std::vector<Tensor> gradients_;
  RecurrentParameters weights_;
  std::vector<Var> states_, outputs_;
};

TEST(RecurrentLoop, GivesTheValuesAndGradientsOfItsSteps) {
  const Case cases[] = {{},
                        {.cell = "tanh"},
                        {.cell = "gru"},
                        {.initial = false},
                        {.constant_x = true},
                        {.penultimate = true},
                        {.masked = 2}};
  for (const Device& device : test::devices()) {
    for (const Case& c : cases) {
      SCOPED_TRACE(c.cell + (c.initial ? "" : ", no states") + (c.constant_x ? ", constants" : "") +
                   (c.penultimate ? ", no last step" : "") + (c.masked > 0 ? ", two weights" : ""));
      Loop want(device, c), got(device, c);
      want.run(false), got.run(true);
      EXPECT_EQ(got.values(), want.values());
      const auto a = got.gradients(), b = want.gradients();
      ASSERT_EQ(a.size(), b.size());
      for (std::size_t i = 0; i < a.size(); ++i) {
        EXPECT_TRUE(test::close(a[i], b[i], kOtherOrder)) << "leaf " << i;
      }
      EXPECT_TRUE(got.finite());
    }
  }
}

TEST(RecurrentLoop, MakesNoGradientsOfALoopThatNothingReaches) {
  for (const Device& device : test::devices()) {
    Loop loop(device, {});
    loop.run(true);
    EXPECT_EQ(loop.unreached(), 4U + 2U + kSteps);
  }
}

/// How many products have their first factor transposed, as those of weights' gradients.
std::int64_t transposed(const std::vector<Journal::Entry>& entries) {
  std::int64_t count = 0;
  for (const Journal::Entry& entry : entries) {
    if (entry.text.find("]ᵀ·") != std::string::npos) count += entry.count;
    count += transposed(entry.entries);
  }
  return count;
}

TEST(RecurrentLoop, HasOneProductForEachWeight) {
  Loop loop(Device{Cpu{}}, {});
  loop.run(true);
  const Journal journal;
  loop.gradients();
  EXPECT_EQ(transposed(journal.entries()), 2);
}

}  // namespace
}  // namespace carousel
