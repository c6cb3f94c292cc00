// The states that a model carries, and the pass that carries them.
#include "engine/model/state.h"

#include <gtest/gtest.h>

#include <vector>

#include "engine/model/model.h"
#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/files.h"
#include "tests/support/scripted.h"

namespace carousel {
namespace {

using test::read;
using test::tensor_of;

class StateOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, StateOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

// A cache may be long: what lies beyond its position is not touched.
TEST_P(StateOn, ResetZeroesWhatIsReadNext) {
  const State state{{{.name = "h", .value = tensor_of<float>(GetParam(), {2, 2}, {1, 2, 3, 4})},
                     {.name = "token", .value = tensor_of<std::int32_t>(GetParam(), {2}, {5, 6})},
                     {.name = "cache",
                      .value = tensor_of<float>(GetParam(), {3, 2}, {1, 2, 3, 4, 5, 6}),
                      .batch_axis = 1,
                      .growth_axis = 0,
                      .position = tensor_of<std::int64_t>(GetParam(), {1}, {2})}}};
  state.reset();
  EXPECT_EQ(read<float>(state.at("h").value), std::vector<float>(4, 0));
  EXPECT_EQ(read<std::int32_t>(state.at("token").value), std::vector<std::int32_t>(2, 0));
  EXPECT_EQ(read<std::int64_t>(state.at("cache").position)[0], 0);
  EXPECT_EQ(read<float>(state.at("cache").value), (std::vector<float>{1, 2, 3, 4, 5, 6}));
}

// Rows are chosen along the batch axis, wherever it is; the position is that of all rows.
TEST_P(StateOn, GatherMakesEveryRowWhatItsChoiceWas) {
  const State state{
      {{.name = "h", .value = tensor_of<float>(GetParam(), {3, 2}, {1, 2, 3, 4, 5, 6})},
       {.name = "token",
        .value = tensor_of<std::int32_t>(GetParam(), {1, 3}, {7, 8, 9}),
        .batch_axis = 1},
       {.name = "cache",
        .value = tensor_of<float>(GetParam(), {2, 3, 1, 2}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}),
        .batch_axis = 1,
        .growth_axis = 0,
        .position = tensor_of<std::int64_t>(GetParam(), {1}, {2})}}};
  const void* const address = state.at("h").value.data();
  state.gather(tensor_of<std::int32_t>(GetParam(), {3}, {2, 0, 2}));
  EXPECT_EQ(read<float>(state.at("h").value), (std::vector<float>{5, 6, 1, 2, 5, 6}));
  EXPECT_EQ(read<std::int32_t>(state.at("token").value), (std::vector<std::int32_t>{9, 7, 9}));
  EXPECT_EQ(read<float>(state.at("cache").value),
            (std::vector<float>{4, 5, 0, 1, 4, 5, 10, 11, 6, 7, 10, 11}));
  EXPECT_EQ(read<std::int64_t>(state.at("cache").position)[0], 2);
  EXPECT_EQ(state.at("h").value.data(), address) << "graphs know the state by its address";
}

TEST_P(StateOn, GatherTakesRowsOfAnotherState) {
  const auto state = [](const std::vector<float>& h, const std::vector<float>& shared,
                        const std::vector<float>& cache, std::int64_t position) {
    const std::int64_t rows = std::ssize(h);
    return State{
        {{.name = "h", .value = tensor_of<float>(GetParam(), {rows}, h)},
         {.name = "shared", .value = tensor_of<float>(GetParam(), {1}, shared), .batch_axis = -1},
         {.name = "cache",
          .value = tensor_of<float>(GetParam(), {2, rows}, cache),
          .batch_axis = 1,
          .growth_axis = 0,
          .position = tensor_of<std::int64_t>(GetParam(), {1}, {position})}}};
  };
  const State from = state({1, 2}, {3}, {4, 5, 6, 7}, 2),
              to = state({0, 0, 0}, {0}, std::vector<float>(6), 0);
  to.gather(from, tensor_of<std::int32_t>(GetParam(), {3}, {1, 0, 1}));
  EXPECT_EQ(read<float>(to.at("h").value), (std::vector<float>{2, 1, 2}));
  EXPECT_EQ(read<float>(to.at("shared").value), std::vector<float>{3});
  EXPECT_EQ(read<float>(to.at("cache").value), (std::vector<float>{5, 4, 5, 7, 6, 7}));
  EXPECT_EQ(read<std::int64_t>(to.at("cache").position)[0], 2);
}

TEST_P(StateOn, CopiesShareTheTensors) {
  const State state{{{.name = "h", .value = tensor_of<float>(GetParam(), {1}, {1})}}};
  const State copied = state;
  copied.reset();
  EXPECT_EQ(read<float>(state.at("h").value)[0], 0);
}

TEST(State, ATensorThatIsNotThereIsNamedBesideThoseThatAre) {
  const State state{{{.name = "h_l0", .value = {}}, {.name = "c_l0", .value = {}}}};
  EXPECT_EQ(test::error_text<Error>([&] { state.at("h_l1"); }),
            "the state has no tensor 'h_l1'; it has h_l0, c_l0");
}

class PassOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, PassOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

// In the order of the calls, so that one state may move on into another.
TEST_P(PassOn, StatesAreCarriedWhenItIsOver) {
  Arena arena(GetParam());
  Tape tape(arena, true);
  Pass pass(tape);
  const auto tensor = [&](float value) { return tensor_of<float>(GetParam(), {1}, {value}); };
  const Tensor next = tensor(3), last = tensor(2), before_last = tensor(1);
  pass.carry(last, before_last);
  pass.carry(next, last);
  EXPECT_EQ(read<float>(last)[0], 2);
  EXPECT_EQ(read<float>(before_last)[0], 1);
  copy_from_host(next, std::vector<float>{4}.data());  // computed after it was asked to be carried
  pass.finish();
  EXPECT_EQ(read<float>(last)[0], 4);
  EXPECT_EQ(read<float>(before_last)[0], 2);
}

TEST_P(PassOn, SaysWhatIsAskedOfIt) {
  Arena arena(GetParam());
  Tape recording(arena, true), values_only(arena, false);
  const Pass plain(values_only);
  EXPECT_FALSE(plain.training() || plain.wants_prediction() || plain.denominator());
  const Tensor counted = tensor_of<float>(GetParam(), {1}, {8});
  const Pass asked(recording, {.random = {.seed = 3, .stream = std::uint64_t{7} << 48U},
                               .denominator = counted,
                               .prediction = true});
  EXPECT_TRUE(asked.training() && asked.wants_prediction());
  EXPECT_FALSE(asked.partial());
  EXPECT_EQ(asked.denominator().data(), counted.data());
  // A place has a stream of its own, counted from the source's.
  for (const std::uint64_t place : {0, 1, 9}) {
    EXPECT_EQ(asked.random(place).seed, 3U);
    EXPECT_EQ(asked.random(place).stream, (std::uint64_t{7} << 48U) + place);
  }
}

TEST_P(PassOn, MeansAreThoseOfTheTermsInTheirOrder) {
  Arena arena(GetParam());
  Tape tape(arena, true);
  Pass pass(tape);
  Objective objective;
  std::vector<float> expected;
  for (const float mean : {3.0F, 1.0F, 2.0F}) {
    objective.terms.push_back(
        test::scripted_term(pass, "term", tensor_of<float>(GetParam(), {1}, {mean}), 0.5F));
    expected.push_back(mean);
    EXPECT_EQ(read<float>(objective.means(tape)), expected) << "weights do not change them";
  }
}

}  // namespace
}  // namespace carousel
