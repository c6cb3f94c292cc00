#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "engine/comparison/comparison_report.h"
#include "engine/run/starting_point.h"
#include "engine/run/trained_model.h"
#include "engine/run/training.h"
#include "kernels/common/check.h"
#include "models/registry.h"
#include "tools/commands/commands.h"
#include "tools/commands/recorded_run.h"
#include "tools/console/progress.h"
#include "tools/console/streams.h"
#include "tools/console/terminal.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse_eager_steps(const std::string& why) {
  throw Error(fmt::format("compare: a training step cannot be a graph here: {}", why));
}

/// A training run from its first step, and the steps that it takes.
struct Side {
  Side(const RunConfig& config, const StartingPoint& start, const Corpus& corpus,
       const Device& device, bool as_graphs = false)
      : training(config, corpus, device),
        notices(start.give(corpus.vocabularies, *training.model)),
        steps(training.run, training.step_parts(as_graphs, refuse_eager_steps)) {}
  void tell_notices() const {
    for (const std::string& notice : notices) talk("compare: " + notice + "\n");
  }

  Training training;
  std::vector<std::string> notices;
  TracedTraining steps;
};

std::string side_name(const Device& device, Precision precision) {
  static constexpr const char* kPrecisions[] = {"f32", "tf32", "bf16"};
  return fmt::format("{} {}", is_cpu(device) ? "cpu" : "cuda",
                     kPrecisions[static_cast<int>(precision)]);
}

Rounding coarser(Precision a, Precision b) {
  static constexpr Rounding kRoundings[] = {Rounding::f32, Rounding::tf32, Rounding::bf16};
  if ((a == Precision::bf16) != (b == Precision::bf16)) return Rounding::mixed;
  return kRoundings[std::max(static_cast<int>(a), static_cast<int>(b))];
}

const std::vector<TableColumn> kColumns = {{"    "},
                                           {"tensor"},
                                           {"largest error", true, 2},
                                           {"relative", true, 1},
                                           {"of tolerance", true},
                                           {"where", false, 3}};

int tell(const ComparisonReport& report, const CommonArguments& common) {
  if (common.json) {
    write_output(report_json(report) + "\n");
  } else {
    print(report_text(report) + "\n");
    write_output(table_text(kColumns, report_rows(report), terminal_width(STDOUT_FILENO)));
  }
  return report.comparison.holds() ? 0 : 1;
}

int compare_with_record(const fs::path& folder, const CompareArguments& arguments,
                        const CommonArguments& common) {
  const RunConfig recorded(folder / "config.toml", model_registry());
  const RunConfig config(folder / "config.toml", model_registry(), common);
  const std::vector<RecordedReport> reports = recorded_reports(folder, arguments.steps);
  if (reports.empty()) {
    throw ConfigError(fmt::format("{}: its metrics have no report up to step {}", folder.string(),
                                  arguments.steps));
  }
  const StartingPoint start(config);
  const Corpus corpus = start.open_corpus({});
  Side side(config, start, corpus, open_device(config.machine));
  side.tell_notices();
  talk(fmt::format("compare: {} of {}, up to step {}, replayed on {}\n",
                   counted(std::ssize(reports), "report"), folder.string(), reports.back().step,
                   device_text(side.training.device)));
  Comparison comparison(coarser(recorded.machine.precision, config.machine.precision));
  replay(reports, side.steps, comparison);
  return tell({.a = "recorded",
               .b = side_name(side.training.device, config.machine.precision),
               .steps = reports.back().step,
               .comparison = comparison},
              common);
}

/// What side `i` overrides in the config.
CommonArguments side_arguments(const CompareArguments& arguments, const CommonArguments& common,
                               std::size_t i) {
  CommonArguments result = common;
  const auto choose = [&](const char* option, const std::vector<std::string>& names,
                          std::optional<std::string>& to, std::string& typed) {
    if (names.empty()) return;
    to = names[std::min(i, names.size() - 1)];
    typed = fmt::format("{} {}", option, fmt::join(names, ","));
  };
  choose("--devices", arguments.devices, result.device, result.device_typed);
  choose("--precisions", arguments.precisions, result.precision, result.precision_typed);
  return result;
}

int compare_sides(const fs::path& file, const CompareArguments& arguments,
                  const CommonArguments& common) {
  const RunConfig config_a(file, model_registry(), side_arguments(arguments, common, 0));
  const RunConfig config_b(file, model_registry(), side_arguments(arguments, common, 1));
  const Device device_a = open_device(config_a.machine), device_b = open_device(config_b.machine);
  const StartingPoint start(config_a);
  const Corpus corpus = start.open_corpus({});
  // `free` is the second side again; nothing corrects it between steps, which shows the drift.
  Side a(config_a, start, corpus, device_a), b(config_b, start, corpus, device_b);
  Side free(config_b, start, corpus, device_b);
  a.tell_notices();
  const Precision precision_a = config_a.machine.precision;
  const Precision precision_b = config_b.machine.precision;
  const std::string name_a = side_name(device_a, precision_a);
  const std::string name_b = side_name(device_b, precision_b);
  talk(fmt::format("compare: {} on {} with {} on {}, {} of {}\n", name_a, device_text(device_a),
                   name_b, device_text(device_b), counted(arguments.steps, "step"), file.string()));

  Comparison comparison(coarser(precision_a, precision_b));
  for (std::int64_t i = 0; i < arguments.steps; ++i) {
    compare_step(a.steps, b.steps, comparison);
    free.steps.step();
  }
  return tell({.a = name_a,
               .b = name_b,
               .steps = arguments.steps,
               .comparison = comparison,
               .drift = drift(a.steps, free.steps)},
              common);
}

/// Eager steps against the same as graphs.
int compare_modes(const fs::path& file, const CompareArguments& arguments,
                  const CommonArguments& common) {
  const RunConfig config(file, model_registry(), side_arguments(arguments, common, 0));
  const Device device = open_device(config.machine);
  if (is_cpu(device)) {
    throw ConfigError(
        fmt::format("--modes {}: the device is the CPU, where no step is a graph; "
                    "expected cuda",
                    fmt::join(arguments.modes, ",")));
  }
  const StartingPoint start(config);
  const Corpus corpus = start.open_corpus({});
  const std::string name = side_name(device, config.machine.precision);
  Side eager(config, start, corpus, device),
      graph(config, start, corpus, device, /*as_graphs=*/true);
  eager.tell_notices();
  talk(fmt::format("compare: eager steps of {} with graphs on {}, {} of {}\n", name,
                   device_text(device), counted(arguments.steps, "step"), file.string()));

  Comparison comparison(Rounding::alike);
  for (std::int64_t i = 0; i < arguments.steps; ++i) {
    compare_whole_step(eager.steps, graph.steps, comparison);
  }
  const StepGraphs& graphs = graph.steps.graphs();
  if (graphs.launched() == 0) {
    throw ConfigError(fmt::format(
        "--steps is {}, and no shape of a step came twice in them, as it must to be a graph; "
        "expected more",
        arguments.steps));
  }
  return tell({.a = name + " eager",
               .b = name + " graph",
               .steps = arguments.steps,
               .comparison = comparison,
               .graph = GraphUse{.graphs = graphs.captured(),
                                 .steps = graphs.launched(),
                                 .unseen = graph.steps.overwritten()}},
              common);
}

bool has_cuda() {
#if CAROUSEL_CUDA
  return Cuda::count() > 0;
#else
  return false;
#endif
}

void check(const CompareArguments& arguments) {
  if (arguments.steps < 1) {
    throw ConfigError(fmt::format("--steps is {}, expected 1 or more", arguments.steps));
  }
  const auto at_most_two = [](const char* option, const std::vector<std::string>& names) {
    if (names.size() > 2) {
      throw ConfigError(
          fmt::format("{} names {} sides, expected one or two, as in a,b", option, names.size()));
    }
  };
  at_most_two("--devices", arguments.devices);
  at_most_two("--precisions", arguments.precisions);
  if (arguments.modes.empty()) return;
  const std::string modes = fmt::format("{}", fmt::join(arguments.modes, ","));
  if (modes != "eager,graph") {
    throw ConfigError(fmt::format("--modes is {}, expected eager,graph", modes));
  }
  const auto one = [](const char* option, const std::vector<std::string>& names) {
    if (names.size() > 1) {
      throw ConfigError(
          fmt::format("{} is {}, expected one of them with --modes, whose two sides are to give "
                      "the same bits",
                      option, fmt::join(names, ",")));
    }
  };
  one("--devices", arguments.devices);
  one("--precisions", arguments.precisions);
}

}  // namespace

int compare_command(const CompareArguments& arguments, const CommonArguments& common) {
  check(arguments);
  const fs::path path(arguments.path);
  const bool is_run = fs::is_directory(path);
  const fs::path config = is_run ? path / "config.toml" : path;
  const ModelEntry& entry = *RunConfig(config, model_registry(), common).entry;
  expect_ability(!entry.fits, "compare", entry);
  if (!arguments.modes.empty()) return compare_modes(config, arguments, common);
  CompareArguments sides = arguments;
  if (sides.devices.empty() && sides.precisions.empty()) {
    if (is_run) return compare_with_record(path, arguments, common);
    if (has_cuda() && !common.device) {
      sides.devices = {"cpu", "cuda"};
    } else if (!common.precision) {
      sides.precisions = {"f32", "bf16"};
    } else {
      throw ConfigError(fmt::format(
          "--precision is {}, and there is one device: expected two sides, by --devices, "
          "--precisions or --modes",
          *common.precision));
    }
  }
  return compare_sides(config, sides, common);
}

}  // namespace carousel
