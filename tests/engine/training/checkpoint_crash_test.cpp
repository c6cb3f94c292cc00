// A checkpoint survives whatever ends the process that saves it: `last` and `best` lead to whole
// checkpoints after a kill at, and a failure of, every system call of a save, and after kills at
// random moments.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <ostream>
#include <random>
#include <string>
#include <thread>

#include "engine/training/checkpoint.h"
#include "kernels/common/check.h"
#include "tests/support/checkpoints.h"
#include "tests/support/failing_calls.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using test::checkpoint_of;
using test::FailingCalls;
using test::Failure;
using test::is_checkpoint;
using test::TemporaryFolder;

/// What a run goes through before the save under test, and that save.
struct Scenario {
  const char* name;
  std::vector<std::int64_t> before;
  std::int64_t step;
  bool is_best;
};
void PrintTo(const Scenario& scenario, std::ostream* out) { *out << scenario.name; }

/// Runs `action` in a child process, which never returns into the test that forked it.
template <class Action>
pid_t in_child(Action action) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  try {
    action();
  } catch (const std::exception& error) {
    fmt::print(stderr, "child: {}\n", error.what());
    ::_exit(2);
  }
  ::_exit(0);
}

// The first save of a run; one that also removes old checkpoints; one onto a step that is there
// already and that `best` leads to, as after a kill between the two links.
const Scenario kScenarios[] = {
    {"First", {}, 3, true}, {"Usual", {1, 2}, 3, true}, {"Again", {2, 3}, 3, true}};

class Save : public testing::TestWithParam<Scenario> {
 protected:
  void prepare(const fs::path& run) const {
    FailingCalls none;
    for (const std::int64_t step : GetParam().before) {
      CheckpointFolder(run, 0, none).save(step, checkpoint_of(Cpu{}, step), true);
    }
  }
  void save(const fs::path& run, SystemCalls& calls) const {
    const Scenario& s = GetParam();
    CheckpointFolder(run, 0, calls).save(s.step, checkpoint_of(Cpu{}, s.step), s.is_best);
  }
  int count_calls() const {
    const TemporaryFolder run;
    prepare(run.path());
    FailingCalls calls;
    save(run.path(), calls);
    return calls.count();
  }
  /// Both links lead to a whole checkpoint, the old or the new; or there was none before.
  void expect_sound(const fs::path& run) const {
    const Scenario& s = GetParam();
    const CheckpointFolder folder(run);
    for (const auto& link : {folder.last(), folder.best()}) {
      if (!link) {
        EXPECT_TRUE(s.before.empty());
        continue;
      }
      const std::int64_t step = SavedCheckpoint(*link).step();
      EXPECT_TRUE(step == s.step || (!s.before.empty() && step == s.before.back())) << step;
      EXPECT_TRUE(is_checkpoint(Cpu{}, *link, step));
    }
    // A run that resumes from the new checkpoint knows its loss as the best: `best` must agree.
    if (folder.last() && folder.last()->filename() == fmt_step(s.step)) {
      EXPECT_EQ(folder.best().value().filename(), fmt_step(s.step));
    }
    for (const std::int64_t step : folder.steps()) {  // no half checkpoint has a proper name
      EXPECT_TRUE(is_checkpoint(Cpu{}, run / "checkpoints" / fmt_step(step), step));
    }
  }
  /// What the next start does: clean up and save. Afterwards nothing shows that anything happened.
  void expect_recovery(const fs::path& run) const {
    CheckpointFolder folder(run);
    folder.remove_leftovers();
    FailingCalls none;
    save(run, none);
    EXPECT_EQ(folder.steps(), std::vector<std::int64_t>{GetParam().step});
    EXPECT_TRUE(is_checkpoint(Cpu{}, *folder.last(), GetParam().step));
    EXPECT_TRUE(is_checkpoint(Cpu{}, *folder.best(), GetParam().step));
    int entries = 0;
    for ([[maybe_unused]] const auto& entry : fs::directory_iterator(run / "checkpoints"))
      ++entries;
    EXPECT_EQ(entries, 3);  // step-N, last, best
  }
  static std::string fmt_step(std::int64_t step) { return "step-" + std::to_string(step); }
};

TEST_P(Save, AKillAtAnySystemCallLeavesTheOldOrTheNewCheckpoint) {
  const int calls = count_calls();
  ASSERT_GT(calls, 20);
  for (const Failure failure : {Failure::kill, Failure::kill_half_done}) {
    for (int at = 0; at < calls; ++at) {
      SCOPED_TRACE(at);
      const TemporaryFolder run;
      prepare(run.path());
      const pid_t child = in_child([&] {
        FailingCalls failing(failure, at);
        save(run.path(), failing);
      });
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 137) << status;
      expect_sound(run.path());
      expect_recovery(run.path());
    }
  }
}

TEST_P(Save, AFailureOfAnySystemCallSaysWhatIsKept) {
  const int calls = count_calls();
  for (const Failure failure : {Failure::no_space, Failure::full_disk, Failure::bad_disk}) {
    int failed = 0;
    for (int at = 0; at < calls; ++at) {
      SCOPED_TRACE(at);
      const TemporaryFolder run;
      prepare(run.path());
      FailingCalls failing(failure, at);
      try {
        save(run.path(), failing);
      } catch (const IoError& error) {
        ++failed;
        const std::string text = error.what();
        const auto last = CheckpointFolder(run.path()).last();
        const std::string kept =
            last ? last->string() + " is complete and kept" : "there is no earlier checkpoint";
        EXPECT_TRUE(text.ends_with(kept)) << text;
        EXPECT_NE(text.find(failure == Failure::bad_disk ? "Input/output error"
                                                         : "No space left on device"),
                  std::string::npos)
            << text;
      }
      expect_sound(run.path());
      expect_recovery(run.path());
    }
    EXPECT_GT(failed, calls / 2);
  }
}

TEST_P(Save, AnInterruptionOfAnySystemCallThatCanBeInterruptedIsSurvived) {
  const int calls = [&] {
    const TemporaryFolder run;
    prepare(run.path());
    FailingCalls counting(Failure::interrupted);
    save(run.path(), counting);
    return counting.count();
  }();
  std::mt19937 random(7);  // writes come five bytes at a time: too many calls for all of them
  for (int round = 0; round < 25; ++round) {
    const TemporaryFolder run;
    prepare(run.path());
    FailingCalls failing(Failure::interrupted, std::uniform_int_distribution(0, calls - 1)(random));
    try {
      save(run.path(), failing);
    } catch (const IoError& error) {  // of a call that signals do not interrupt, such as rename
      EXPECT_NE(std::string(error.what()).find("Interrupted"), std::string::npos) << error.what();
    }
    expect_sound(run.path());
    expect_recovery(run.path());
  }
}

INSTANTIATE_TEST_SUITE_P(Of, Save, testing::ValuesIn(kScenarios),
                         [](const auto& save) { return std::string(save.param.name); });

// A child saves step after step and reports each save that returned; the parent kills it at a
// random moment, checks that no reported save was lost, and lets the next child go on from there.
TEST(Checkpoint, KillsAtRandomMomentsLoseNoSaveThatReturned) {
  const TemporaryFolder run;
  std::mt19937 random(31);
  std::int64_t last = 0, killed_inside = 0;
  constexpr int kRounds = 40;
  for (int round = 0; round < kRounds; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = in_child([&] {
      CheckpointFolder folder(run.path(), 2);
      folder.remove_leftovers();
      for (std::int64_t step = last + 1;; ++step) {
        folder.save(step, checkpoint_of(Cpu{}, step), step % 3 == 0);
        if (::write(pipe_ends[1], &step, sizeof step) != sizeof step) return;
      }
    });
    ::close(pipe_ends[1]);
    std::int64_t reported = last;
    if (round % 2 == 0) {  // half of the children get at least one save done
      ASSERT_EQ(::read(pipe_ends[0], &reported, sizeof reported), sizeof reported);
    }
    std::this_thread::sleep_for(
        std::chrono::microseconds(std::uniform_int_distribution(0, 20'000)(random)));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself";
    for (std::int64_t step = 0; ::read(pipe_ends[0], &step, sizeof step) == sizeof step;) {
      reported = step;
    }
    ::close(pipe_ends[0]);

    const CheckpointFolder folder(run.path());
    if (!folder.last()) {
      ASSERT_EQ(reported, 0);
      continue;
    }
    const std::int64_t saved = SavedCheckpoint(*folder.last()).step();
    ASSERT_GE(saved, reported);
    ASSERT_LE(saved, reported + 1);
    ASSERT_TRUE(is_checkpoint(Cpu{}, *folder.last(), saved));
    if (const auto best = folder.best()) {
      const std::int64_t step = SavedCheckpoint(*best).step();
      ASSERT_TRUE(step == saved / 3 * 3 || step == saved + 1) << step << " beside " << saved;
      ASSERT_TRUE(is_checkpoint(Cpu{}, *best, step));
    }
    last = saved;
    CheckpointFolder cleaned(run.path());
    killed_inside += cleaned.remove_leftovers() > 0 ? 1 : 0;
  }
  EXPECT_GT(last, kRounds / 4);
  EXPECT_GT(killed_inside, 0);  // else the kills fell where they prove nothing
}

}  // namespace
}  // namespace carousel
