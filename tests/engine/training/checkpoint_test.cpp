#include "engine/training/checkpoint.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/support/checkpoints.h"
#include "tests/support/device.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using test::checkpoint_of;
using test::error_text;
using test::expect_checkpoint;
using test::file_content;
using test::TemporaryFolder;

TEST(Scalars, EveryDoubleReadsBackBitForBit) {
  std::mt19937_64 random(3);
  std::vector<double> values{0.0,
                             -0.0,
                             0.1,
                             std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity(),
                             std::numeric_limits<double>::denorm_min(),
                             std::numeric_limits<double>::max()};
  for (int i = 0; i < 10'000; ++i) values.push_back(std::bit_cast<double>(random()));
  for (const double value : values) {
    Scalars scalars;
    scalars.set("x", value);
    const double read = Scalars::from_json(scalars.json(), "test").real("x");
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(read));
    } else {
      EXPECT_EQ(std::bit_cast<std::uint64_t>(read), std::bit_cast<std::uint64_t>(value));
    }
  }
}

TEST(Scalars, WholeNumbersKeepAll64Bits) {
  Scalars scalars;
  scalars.set("seed", std::numeric_limits<std::uint64_t>::max());
  scalars.set("least", std::numeric_limits<std::int64_t>::min());
  scalars.set("name", std::string_view("кар\"усель"));
  const Scalars read = Scalars::from_json(scalars.json(), "test");
  EXPECT_EQ(read.natural("seed"), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(read.integer("least"), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(read.text("name"), "кар\"усель");
  EXPECT_EQ(read, scalars);
}

TEST(Scalars, WhatIsMissingOrMalformedIsNamed) {
  const Scalars scalars = Scalars::from_json(R"({"a":"1x","b":""})", "test");
  EXPECT_EQ(error_text<FormatError>([&] { scalars.integer("a"); }),
            "test: scalar 'a' is '1x', expected a whole number");
  EXPECT_THROW(scalars.real("b"), FormatError);
  EXPECT_THROW(scalars.natural("c"), FormatError);
  for (const char* json : {"", "[]", "{\"a\":1}", "{"}) {
    EXPECT_THROW(Scalars::from_json(json, "test"), FormatError) << json;
  }
}

TEST(Checkpoint, EverythingSavedIsRestoredOnEveryDevice) {
  for (const Device& device : test::devices()) {
    const TemporaryFolder run;
    CheckpointFolder folder(run.path());
    folder.save(42, checkpoint_of(device, 42), true);
    expect_checkpoint(device, find_checkpoint(run.path()), 42);
    expect_checkpoint(device, run / "checkpoints/step-42", 42);
    expect_checkpoint(device, run / "checkpoints/best", 42);
    const SavedCheckpoint saved(find_checkpoint(run.path()));
    EXPECT_EQ(saved.metadata().at("gate_order"), "i, f, g, o");
  }
}

TEST(Checkpoint, TheSameRunWritesTheSameBytes) {
  const TemporaryFolder a, b;
  CheckpointFolder(a.path()).save(7, checkpoint_of(Cpu{}, 7), false);
  CheckpointFolder(b.path()).save(7, checkpoint_of(Cpu{}, 7), false);
  for (const char* name : {"model.safetensors", "state.safetensors"}) {
    const std::string path = std::string("checkpoints/last/") + name;
    EXPECT_EQ(file_content(a / path), file_content(b / path));
  }
}

TEST(Checkpoint, LinksAreRelativeSoThatARunCanBeMoved) {
  const TemporaryFolder run;
  CheckpointFolder(run / "before").save(7, checkpoint_of(Cpu{}, 7), true);
  fs::rename(run / "before", run / "after");
  expect_checkpoint(Cpu{}, find_checkpoint(run / "after"), 7);
  EXPECT_EQ(fs::read_symlink(run / "after/checkpoints/best"), "step-7");
}

TEST(Checkpoint, LastBestAndTheNewestAreKept) {
  const TemporaryFolder run;
  CheckpointFolder folder(run.path(), /*keep_newest=*/2);
  const auto save = [&](std::int64_t step, bool best) {
    folder.save(step, checkpoint_of(Cpu{}, step), best);
    return folder.steps();
  };
  using Steps = std::vector<std::int64_t>;
  EXPECT_EQ(save(100, true), (Steps{100}));
  EXPECT_EQ(save(200, false), (Steps{100, 200}));
  EXPECT_EQ(save(300, false), (Steps{100, 200, 300}));       // 100 is the best
  EXPECT_EQ(save(400, false), (Steps{100, 200, 300, 400}));  // 400 is the last
  EXPECT_EQ(save(500, true), (Steps{300, 400, 500}));        // 500 is both
  EXPECT_EQ(folder.last()->filename(), "step-500");
  EXPECT_EQ(folder.best()->filename(), "step-500");
}

TEST(Checkpoint, WhatAKilledSaveDidNotComeToRemoveGoesAtTheNextStart) {
  const TemporaryFolder run;
  for (const std::int64_t step : {1, 2, 3}) {
    CheckpointFolder(run.path(), /*keep_newest=*/9).save(step, checkpoint_of(Cpu{}, step), false);
  }
  CheckpointFolder folder(run.path());
  EXPECT_EQ(folder.remove_leftovers(), 0);
  EXPECT_EQ(folder.steps(), std::vector<std::int64_t>{3});
}

TEST(Checkpoint, NothingALinkOfTheUsersPointsToIsRemoved) {
  const TemporaryFolder run;
  CheckpointFolder folder(run.path());
  folder.save(1, checkpoint_of(Cpu{}, 1), false);
  replace_link(run / "checkpoints/favourite", "step-1/");
  replace_link(run / "checkpoints/broken", "nowhere");
  for (std::int64_t step = 2; step <= 4; ++step)
    folder.save(step, checkpoint_of(Cpu{}, step), false);
  EXPECT_EQ(folder.steps(), (std::vector<std::int64_t>{1, 4}));
}

TEST(Checkpoint, ARunWoundBackOverwritesAndKeepsWhatLiesAhead) {
  const TemporaryFolder run;
  CheckpointFolder folder(run.path(), /*keep_newest=*/3);
  for (const std::int64_t step : {10, 20, 30}) folder.save(step, checkpoint_of(Cpu{}, step), true);
  folder.save(20, checkpoint_of(Cpu{}, 21), false);  // other content at a step there is already
  EXPECT_EQ(folder.steps(), (std::vector<std::int64_t>{10, 20, 30}));
  EXPECT_EQ(SavedCheckpoint(*folder.last()).scalars().integer("epoch"), 21);
  EXPECT_EQ(folder.best()->filename(), "step-30");
}

TEST(Checkpoint, WeightsConvertAndSaySoButStateMustBeExact) {
  const TemporaryFolder run;
  CheckpointFolder(run.path()).save(1, checkpoint_of(Cpu{}, 1), false);
  const SavedCheckpoint saved(find_checkpoint(run.path()));
  const auto in = [](const CheckpointData& data, std::vector<NamedTensor> CheckpointData::*part) {
    std::vector<NamedTensor> tensors = data.*part;
    for (NamedTensor& t : tensors) {
      if (t.tensor.dtype() == DType::f32) t.tensor = Tensor(Cpu{}, t.tensor.shape(), DType::bf16);
    }
    return tensors;
  };
  const CheckpointData data = checkpoint_of(Cpu{}, 1);
  EXPECT_EQ(saved.restore_weights(data.weights), std::vector<std::string>{});
  EXPECT_EQ(saved.restore_weights(in(data, &CheckpointData::weights)),
            (std::vector<std::string>{"lstm.weight_hh_l0", "lstm.weight_ih_l0"}));
  EXPECT_THROW(saved.restore_state(in(data, &CheckpointData::state)), FormatError);
}

TEST(Checkpoint, NamesThatDoNotMatchAreListedAndNothingIsTouched) {
  const TemporaryFolder run;
  CheckpointFolder(run.path()).save(1, checkpoint_of(Cpu{}, 1), false);
  const SavedCheckpoint saved(find_checkpoint(run.path()));
  const CheckpointData other = checkpoint_of(Cpu{}, 2);
  std::vector<NamedTensor> tensors = other.weights;
  tensors[0].name = "head.weight";
  const std::string error = error_text<FormatError>([&] { saved.restore_weights(tensors); });
  EXPECT_TRUE(error.ends_with("missing head.weight; unexpected " + other.weights[0].name)) << error;

  std::vector<NamedTensor> misshapen = other.weights;
  misshapen.back().tensor = Tensor(Cpu{}, {1}, DType::f32);
  EXPECT_THROW(saved.restore_weights(misshapen), FormatError);
  for (const NamedTensor& t : other.weights) {
    if (t.tensor.dtype() == DType::f32) {
      EXPECT_EQ(*static_cast<const float*>(t.tensor.data()), 2.0F) << t.name;
    }
  }
}

TEST(Checkpoint, WhatTheFirstSaveWouldRefuseIsKnownBeforehand) {
  struct SmallDisk final : SystemCalls {
    std::uint64_t available(const char*) override { return room; }
    std::uint64_t room = 0;
  } disk;
  const TemporaryFolder run;
  const CheckpointFolder folder(run.path(), 0, disk);
  CheckpointData data = checkpoint_of(Cpu{}, 1);
  EXPECT_NE(error_text<IoError>([&] { folder.expect_room(data); }).find("its disk has 0.0 MB left"),
            std::string::npos);
  disk.room = 1 << 20;
  EXPECT_NO_THROW(folder.expect_room(data));
  data.metadata["carousel.config"] = "text = \"\xFF\"";
  EXPECT_NE(error_text<FormatError>([&] { folder.expect_room(data); }).find("not UTF-8"),
            std::string::npos);
  data.metadata["carousel.config"] = std::string(100'000'001, 'x');
  EXPECT_NE(error_text<FormatError>([&] { folder.expect_room(data); }).find("are allowed"),
            std::string::npos);
}

TEST(Checkpoint, LongListsOfNamesAreCutShort) {
  const TemporaryFolder run;
  CheckpointFolder(run.path()).save(1, {}, false);
  const SavedCheckpoint saved(find_checkpoint(run.path()));
  std::vector<NamedTensor> tensors;
  for (int i = 0; i < 20; ++i) {
    tensors.push_back({fmt::format("t{:02}", i), Tensor(Cpu{}, {1}, DType::f32)});
  }
  const std::string error = error_text<FormatError>([&] { saved.restore_weights(tensors); });
  EXPECT_TRUE(error.ends_with("missing t00, t01, t02, t03, t04, t05, t06, t07 and 12 more"))
      << error;
}

TEST(Checkpoint, FilesOfDifferentStepsAreNotTakenForOneCheckpoint) {
  const TemporaryFolder run;
  CheckpointFolder folder(run.path(), /*keep_newest=*/2);
  for (const std::int64_t step : {1, 2}) folder.save(step, checkpoint_of(Cpu{}, step), false);
  fs::copy_file(run / "checkpoints/step-1/state.safetensors",
                run / "checkpoints/step-2/state.safetensors", fs::copy_options::overwrite_existing);
  const std::string error = error_text<FormatError>([&] { SavedCheckpoint(*folder.last()); });
  EXPECT_NE(error.find("step is '1', expected '2'"), std::string::npos) << error;
}

TEST(Checkpoint, TheBestIsMeantUnlessAnotherIsNamed) {
  const TemporaryFolder run;
  CheckpointFolder folder(run.path(), /*keep_newest=*/1);
  const auto step = [&](const std::string& name) {
    return SavedCheckpoint(find_checkpoint(run.path(), name)).step();
  };
  folder.save(1, checkpoint_of(Cpu{}, 1), false);
  EXPECT_EQ(step(""), 1) << "the last, without a best";
  folder.save(2, checkpoint_of(Cpu{}, 2), true);
  folder.save(3, checkpoint_of(Cpu{}, 3), false);
  EXPECT_EQ(step(""), 2);
  EXPECT_EQ(step("best"), 2);
  EXPECT_EQ(step("last"), 3);
  EXPECT_EQ(step("step-1"), 1);
  EXPECT_EQ(error_text<IoError>([&] { find_checkpoint(run.path(), "step-9"); }),
            run.path().string() +
                " has no checkpoint 'step-9', expected one of: last, best, step-1, step-2, step-3");
  const fs::path one = run / "checkpoints/step-1";
  EXPECT_EQ(find_checkpoint(one), one);
  EXPECT_EQ(error_text<ConfigError>([&] { find_checkpoint(one, "best"); }),
            "--checkpoint is best, and " + one.string() + " is a checkpoint, expected a run");
}

TEST(Checkpoint, ARunWithoutOneSaysWhatWasLookedFor) {
  const TemporaryFolder run;
  const std::string error = error_text<IoError>([&] { find_checkpoint(run.path()); });
  EXPECT_NE(error.find("holds no checkpoint"), std::string::npos) << error;
  const fs::path none = run / "none";
  EXPECT_EQ(error_text<IoError>([&] { find_checkpoint(none); }),
            "there is no run " + none.string());
  EXPECT_FALSE(CheckpointFolder(run.path()).last());
  EXPECT_THROW(SavedCheckpoint(run.path()), IoError);
}

}  // namespace
}  // namespace carousel
