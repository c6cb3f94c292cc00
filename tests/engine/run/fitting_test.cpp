// A run whose model is fitted: what an estimator of several iterations leaves in its folder.
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/model/estimator.h"
#include "engine/run/trained_model.h"
#include "engine/run/training.h"
#include "kernels/common/check.h"
#include "tests/support/files.h"
#include "tests/support/scripted_entry.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;

/// Takes `iterations`; its table is how many it took, and its loss on every batch.
class Counter final : public test::ScriptedModel, public Estimator {
 public:
  explicit Counter(std::int64_t iterations)
      : ScriptedModel(Parameters(),
                      [this](Parameters&, Pass& pass, const Batch&, const State&) {
                        return Objective{.terms = {test::scripted_term(pass, "loss", taken_)}};
                      }),
        iterations_(iterations),
        taken_(test::tensor_of<float>(Cpu{}, {1}, {0})) {}
  Estimator* estimator() override { return this; }
  bool fit(const Fit& fit) override {
    for (std::int64_t i = fit.taken + 1; i <= iterations_; ++i) {
      fit.progress("counting", i, iterations_);
      if (fit.stop) return i > 1;
      *static_cast<float*>(taken_.mutable_data()) += 1;
      fit.iterated(i, 10 - static_cast<double>(i));
    }
    return true;
  }
  bool is_over(std::int64_t iterations) const override { return iterations >= iterations_; }
  std::vector<NamedTensor> tables() const override { return {{"taken", taken_}}; }
  void load(const SafetensorsFile& file) override { file.read_into("taken", taken_); }
  std::string summary() const override { return "a count"; }

 private:
  std::int64_t iterations_;
  Tensor taken_;
};

class CounterConfig final : public ModelConfig {
 public:
  void describe(OptionSection& section) override {
    section.add("iterations", iterations_, "over the corpus").may_change();
  }
  std::unique_ptr<Model> make(const Vocabularies&, const Device&, DType,
                              const Beginning&) const override {
    return std::make_unique<Counter>(iterations_);
  }

 private:
  std::int64_t iterations_ = 3;
};

ModelEntry counter_entry() {
  ModelEntry entry = test::scripted_entry();
  entry.kind = "counter";
  entry.config = [] { return std::unique_ptr<ModelConfig>(new CounterConfig); };
  entry.fits = true;
  return entry;
}

const ModelEntry kModels[] = {counter_entry()};

class FittedRun : public testing::Test {
 protected:
  FittedRun() {
    std::string text;
    for (int i = 0; i < 20; ++i) text += "abcdefghijkl";
    here_.write("text", text);
  }
  RunConfig config(std::vector<std::string> set = {}) const {
    return {"[model]\nkind = 'counter'\n[data]\ntext = '" + here_.path("text") + "'\n",
            "config",
            kModels,
            {.set = std::move(set)}};
  }
  /// How the run ended. It is stopped in the progress of iteration `stop_at`, or killed in that of
  /// `kill_at`.
  RunEnd train(const RunConfig& config, bool resume = false, std::int64_t stop_at = -1,
               std::int64_t kill_at = -1) {
    struct Stopper final : TrainObserver {
      void on_progress(std::string_view, std::int64_t done, std::int64_t) override {
        if (done == killed_at) throw std::runtime_error("killed");
        if (done == at) stop = true;
      }
      void on_notice(const std::string& what) override { notices.push_back(what); }
      std::atomic<bool> stop = false;
      std::int64_t at = 0, killed_at = 0;
      std::vector<std::string> notices;
    } stopper;
    stopper.at = stop_at;
    stopper.killed_at = kill_at;
    const RunEnd end = carousel::train(config, run_,
                                       {.resume = resume,
                                        .observer = &stopper,
                                        .stop = &stopper.stop,
                                        .end = [&](const RunStatus& run, RunEnd, const fs::path&) {
                                          step_ = run.step;
                                          best_ = run.best ? run.best->value : -1;
                                        }});
    notices_ = stopper.notices;
    return end;
  }
  std::vector<nlohmann::json> metrics() const {
    std::istringstream lines(test::file_content(run_ / "metrics.jsonl"));
    std::vector<nlohmann::json> all;
    for (std::string line; std::getline(lines, line);) all.push_back(nlohmann::json::parse(line));
    return all;
  }

  test::TemporaryFolder here_;
  fs::path run_ = here_ / "run";
  std::vector<std::string> notices_;
  std::int64_t step_ = -1;
  double best_ = -1;
};

TEST_F(FittedRun, LeavesALineForEachIterationAndOneCheckpoint) {
  EXPECT_EQ(train(config()), RunEnd::finished);
  EXPECT_EQ(step_, 3);
  EXPECT_EQ(best_, 3);
  const auto lines = metrics();
  ASSERT_EQ(lines.size(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(lines[i]["step"], i + 1);
    EXPECT_EQ(lines[i]["tokens"], (i + 1) * 216);  // of 240 tokens, the first nine tenths
    EXPECT_EQ(lines[i]["loss"], 9 - static_cast<double>(i));
    EXPECT_EQ(lines[i].contains("validation_loss"), i == 2);
  }
  EXPECT_EQ(lines[2]["validation_loss"], 3);
  for (const char* const link : {"last", "best"}) {
    EXPECT_EQ(fs::read_symlink(run_ / "checkpoints" / link), "step-3");
  }
  TrainedModel trained(run_, kModels);
  EXPECT_EQ(trained.step(), 3);
  EXPECT_EQ(host_floats(trained.model().estimator()->tables().front().tensor).front(), 3);
}

TEST_F(FittedRun, ResumedHasNothingToDo) {
  train(config());
  const std::string before = test::file_content(run_ / "metrics.jsonl");
  EXPECT_EQ(train(config(), /*resume=*/true), RunEnd::nothing_to_do);
  EXPECT_EQ(step_, 3);
  EXPECT_EQ(best_, 3);
  EXPECT_EQ(test::file_content(run_ / "metrics.jsonl"), before);
  EXPECT_EQ(train(config({"model.iterations=2"}), /*resume=*/true), RunEnd::nothing_to_do);
}

TEST_F(FittedRun, GoesOnToMoreIterations) {
  train(config());
  EXPECT_EQ(train(config({"model.iterations=5"}), /*resume=*/true), RunEnd::finished);
  EXPECT_EQ(step_, 5);
  EXPECT_EQ(best_, 3) << "the loss of this model rises";
  EXPECT_EQ(notices_, std::vector<std::string>{"resumed with model.iterations is 5, was 3"});
  EXPECT_EQ(fs::read_symlink(run_ / "checkpoints/last"), "step-5");
  EXPECT_EQ(fs::read_symlink(run_ / "checkpoints/best"), "step-3");
  EXPECT_EQ(metrics().size(), 5U);
  EXPECT_EQ(metrics().back()["validation_loss"], 5);
}

/// The lines without what the clock decides.
std::string timeless(std::vector<nlohmann::json> lines) {
  std::string text;
  for (nlohmann::json& line : lines) {
    for (const char* const key : {"seconds", "tokens_per_second"}) line.erase(key);
    text += line.dump() + "\n";
  }
  return text;
}

TEST_F(FittedRun, InterruptedOrKilledGoesOnWithTheNextIteration) {
  EXPECT_EQ(train(config()), RunEnd::finished);
  const std::string lines = timeless(metrics());
  const auto tables = [&] {
    return test::file_content(run_ / "checkpoints/last/model.safetensors");
  };
  const std::string unbroken = tables();
  for (const bool killed : {false, true}) {
    fs::remove_all(run_);
    if (killed) {
      EXPECT_THROW(train(config(), false, -1, 3), std::runtime_error);
    } else {
      EXPECT_EQ(train(config(), false, 3), RunEnd::interrupted);
      EXPECT_EQ(step_, 2);
    }
    EXPECT_EQ(fs::read_symlink(run_ / "checkpoints/last"), "step-2");
    EXPECT_FALSE(metrics().back().contains("validation_loss")) << "it is due after the last";
    const double seconds = metrics().back()["seconds"];
    EXPECT_EQ(train(config(), /*resume=*/true), RunEnd::finished);
    EXPECT_EQ(step_, 3);
    EXPECT_EQ(best_, 3);
    EXPECT_EQ(timeless(metrics()), lines);
    EXPECT_GE(metrics().back()["seconds"], seconds);
    EXPECT_EQ(tables(), unbroken);
    EXPECT_EQ(fs::read_symlink(run_ / "checkpoints/best"), "step-3");
  }
}

TEST_F(FittedRun, StoppedInTheFirstIterationLeavesNothing) {
  EXPECT_EQ(train(config(), false, 1), RunEnd::interrupted);
  EXPECT_EQ(step_, 0);
  EXPECT_FALSE(fs::exists(run_)) << "nothing was fitted";
}

TEST_F(FittedRun, KeysOfTrainingAreToldInALine) {
  train(config({"train.batch=8", "optimizer.kind=sgd", "run.precision=bf16", "train.seed=5",
                "model.weights=nowhere"}));
  EXPECT_EQ(notices_.size(), 2U);
  EXPECT_NE(
      notices_[0].find("train.batch = 8, optimizer.kind = \"sgd\" have no effect: model.kind = "
                       "counter is fitted, not trained in steps"),
      std::string::npos)
      << notices_[0];
  EXPECT_EQ(notices_[1],
            "run.precision = \"bf16\" has no effect: model.kind = counter runs on the CPU");
  EXPECT_THROW(config({"run.device=cuda"}), ConfigError);
}

}  // namespace
}  // namespace carousel
