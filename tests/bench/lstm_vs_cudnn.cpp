#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/graph.h"
#include "tests/bench/lstm_contenders.h"
#include "tests/bench/lstm_results.h"
#include "tests/support/cuda_timer.h"
#include "tests/support/cudnn.h"

// The LSTM against cuDNN, called directly: every algorithm and type that it takes, over a sweep of
// widths and batches, input size = width. Both sides run a forward pass in training mode, and that
// with the whole backward pass; all products count. Each implementation is called eagerly and also
// replayed as a CUDA graph, as training runs.
//
// Within a size and width of numbers all take turns, one run each, so that clocks and temperature
// are the same for all. A run begins on an idle device with the caches as the runs of its rivals
// left them: nothing is flushed, and what fits in L2 beside them is found there by either side.
// cuDNN adds to the gradients of its weights and is not charged for clearing them.

namespace carousel::bench {
namespace {

using test::CudnnType;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

struct Options {
  std::string out;
  std::vector<std::int64_t> hidden{128, 256, 512, 768, 1024, 1536, 2048};
  std::vector<std::int64_t> batch{8, 16, 32, 64, 128, 256};
  std::int64_t steps = 256;
  double seconds = 420, cell_seconds = 0.7;
};
constexpr int kDeviceLost = 2;  // the exit status
constexpr int kLeastRuns = 5, kMostRuns = 60;

class Sweep {
 public:
  Sweep(const Cuda& cuda, const Options& options)
      : cuda_(cuda), options_(options), cudnn_(cuda), results_(options.out) {}

  /// Measures what the file does not have yet, until the time is up; then prints the table.
  void run() {
    fmt::print("{}, cuDNN {}\n", cuda_.name(), test::cudnn_version());
    std::size_t cells = 0, left = 0;
    for (const std::int64_t width : options_.hidden) {
      for (const std::int64_t batch : options_.batch) {
        ++cells;
        if (!measure(Cell{.T = options_.steps, .B = batch, .H = width})) ++left;
      }
    }
    results_.print_table();
    if (left == 0) {
      fmt::print("all {} cells are measured\n", cells);
    } else {
      fmt::print("{} of {} cells left: the same command continues\n", left, cells);
    }
  }

 private:
  /// Types that are held against each other.
  static inline const std::vector<std::vector<CudnnType>> kWidths{
      {CudnnType::f32}, {CudnnType::tf32}, {CudnnType::bf16, CudnnType::fp16}};

  /// One pass of a contender, called or replayed.
  struct Entry {
    Record record;
    std::function<void()> work;
    std::vector<double> times{};
    bool failed = false;
  };

  static constexpr std::array kPasses{"forward", "train"}, kLaunches{"eager", "graph"};

  static Record record(const Contender& c, const char* pass, const char* launch) {
    Record r = c.who;
    r.pass = pass, r.launch = launch;
    return r;
  }

  bool is_complete(const std::vector<Contender>& all, const char* pass) const {
    return std::all_of(all.begin(), all.end(), [&](const Contender& c) {
      return results_.find(record(c, pass, "eager")) != nullptr &&
             results_.find(record(c, pass, "graph")) != nullptr;
    });
  }

  /// Whether the file has all of a cell now.
  bool measure(const Cell& cell) {
    for (const auto& types : kWidths) {
      std::vector<Contender> all = contenders(cuda_, cudnn_, cell, types);
      if (is_complete(all, "forward") && is_complete(all, "train")) continue;
      if (seconds_since(begin_) >= options_.seconds) return false;
      measure(all);
    }
    return true;
  }

  void measure(std::vector<Contender>& all) {
    const Clock::time_point begin = Clock::now();
    for (Contender& c : all) {
      const bool opened = attempt(record(c, "forward", "eager"), [&] {
        c.open(c);
        cuda_.synchronize();
      });
      if (opened) continue;
      for (const char* pass : kPasses) copy_failure(c, "forward", pass);
      c.forward = c.backward = nullptr;
    }
    std::size_t ran = 0;
    for (const char* pass : kPasses) {
      if (!is_complete(all, pass)) ran += measure(all, pass);
    }
    const Record& cell = all.front().who;
    fmt::print("H {} B {} T {} {}: {} of {} ran, {:.1f} s\n", cell.H, cell.B, cell.T,
               all.back().who.dtype, ran, all.size() * kPasses.size() * kLaunches.size(),
               seconds_since(begin));
    std::fflush(stdout);
  }

  /// Times one pass of all, turn by turn; returns how many ran.
  std::size_t measure(const std::vector<Contender>& all, const char* pass) {
    std::vector<Entry> entries;
    for (const Contender& c : all) {
      if (c.forward == nullptr) continue;
      const std::function<void()> work = [&c, train = std::string_view(pass) == "train"] {
        c.forward();
        if (train) c.backward();
      };
      const bool runs = attempt(record(c, pass, "eager"), [&] {
        for (int i = 0; i < 2; ++i) work();  // the second has nothing to do for the first time
        cuda_.synchronize();
      });
      if (!runs) {
        copy_failure(c, pass, pass);
        continue;
      }
      entries.push_back({record(c, pass, "eager"), work});
      std::shared_ptr<const Graph> graph;
      const bool replays = attempt(record(c, pass, "graph"), [&] {
        graph = std::make_shared<const Graph>(Device(cuda_), work);
        graph->launch();
        cuda_.synchronize();
      });
      if (replays) entries.push_back({record(c, pass, "graph"), [graph] { graph->launch(); }});
    }
    const Clock::time_point begin = Clock::now();
    for (int n = 0;
         n < kLeastRuns || (n < kMostRuns && seconds_since(begin) < options_.cell_seconds); ++n) {
      for (Entry& e : entries) time_once(e);
    }
    std::size_t ran = 0;
    for (const Entry& e : entries) ran += add(e) ? 1 : 0;
    return ran;
  }

  void time_once(Entry& e) {
    if (e.failed) return;
    try {
      e.times.push_back(timer_.milliseconds(e.work));
    } catch (const std::exception& failure) {
      e.failed = true;
      fail(e.record, failure.what());
    }
  }

  bool add(const Entry& e) {
    if (e.failed) return false;
    std::vector<double> times = e.times;
    std::sort(times.begin(), times.end());
    Record r = e.record;
    r.status = "ok";
    r.median_ms = (times[(times.size() - 1) / 2] + times[times.size() / 2]) / 2;
    r.min_ms = times.front(), r.max_ms = times.back();
    r.repetitions = static_cast<int>(times.size());
    results_.add(r);
    return true;
  }

  /// Whether `work` runs. A failure is recorded, and not tried again.
  bool attempt(const Record& r, const std::function<void()>& work) {
    const Record* const known = results_.find(r);
    if (known != nullptr && !known->ok()) return false;
    results_.trying(r);
    try {
      work();
    } catch (const std::exception& failure) {
      fail(r, failure.what());
      return false;
    }
    results_.tried();
    return true;
  }

  void fail(Record r, const char* why) {
    r.status = why;
    results_.add(r);
    results_.tried();
    test::forget_cuda_error();
    try {
      cuda_.synchronize();
    } catch (const CudaError& lost) {
      // Nothing works in this process any more, no destructor either.
      fmt::print("the device is lost, the same command continues: {}: {}\n", r.key(), lost.what());
      std::fflush(stdout);
      std::_Exit(kDeviceLost);
    }
  }

  /// What failed when called in `from` is not replayed, and not tried in `pass`, for that reason.
  void copy_failure(const Contender& c, const char* from, const char* pass) {
    for (const char* launch : kLaunches) {
      Record r = record(c, pass, launch);
      if (results_.find(r) != nullptr) continue;
      r.status = results_.find(record(c, from, "eager"))->status;
      results_.add(r);
    }
  }

  const Cuda cuda_;
  const Options options_;
  const test::Cudnn cudnn_;
  const test::CudaTimer timer_{cuda_};
  const Clock::time_point begin_ = Clock::now();
  Results results_;
};

int sweep(int argc, char** argv) {
  Options options;
  CLI::App app{"Times the LSTM against cuDNN.", "lstm_vs_cudnn"};
  app.add_option("--out", options.out, "file of JSON lines; continued if it is there")->required();
  app.add_option("--hidden", options.hidden, "widths")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  app.add_option("--batch", options.batch, "batch sizes")
      ->delimiter(',')
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  app.add_option("--steps", options.steps, "time steps")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  app.add_option("--seconds", options.seconds, "no cell is begun after so many")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--cell-seconds", options.cell_seconds, "of timing for a cell, width and pass")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& e) {
    throw ConfigError(e.what());
  }
  if (Cuda::count() == 0) throw CudaError("no CUDA device");
  if (!test::cudnn_missing().empty()) throw CudaError("no cuDNN: " + test::cudnn_missing());
  Sweep(Cuda(), options).run();
  return 0;
}

}  // namespace
}  // namespace carousel::bench

int main(int argc, char** argv) {
  try {
    return carousel::bench::sweep(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "lstm_vs_cudnn: {}\n", e.what());
    return 1;
  }
}
