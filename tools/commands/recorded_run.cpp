#include "tools/commands/recorded_run.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/files/atomic.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// A report's numbers as a trace, so that a replayed step is compared as any other.
Trace trace_of(const RecordedReport& report) {
  // Nothing sets the sides right between steps, so that errors feed on themselves. What was seen
  // over 200 steps of a small model on two devices: 6e-6 in f32; 0.1 between f32 and bf16.
  const double root = std::sqrt(static_cast<double>(report.step));
  const Tolerances tolerance{.f32 = {.relative = 1e-6 * root}, .bf16 = {.relative = 1e-2 * root}};
  Trace trace;
  const auto add = [&](const char* name, double value) {
    trace.push_back({.name = name,
                     .phase = Phase::replay,
                     .stage = static_cast<int>(trace.size()),
                     .tolerance = tolerance,
                     .shape = {1},
                     .values = {static_cast<float>(value)}});
  };
  add("learning rate", report.learning_rate);
  add("mean loss since the last report", report.loss);
  add("gradient norm", report.gradient_norm);
  return trace;
}

}  // namespace

std::vector<RecordedReport> recorded_reports(const std::filesystem::path& run, std::int64_t last) {
  const std::string file = (run / "metrics.jsonl").string();
  std::istringstream text(read_file(file));
  std::vector<RecordedReport> reports;
  int number = 0;
  for (std::string line; std::getline(text, line);) {
    ++number;
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    for (const char* key : {"step", "loss", "gradient_norm", "learning_rate"}) {
      if (!json.is_object() || !json.contains(key) || !json[key].is_number()) {
        throw FormatError(
            fmt::format("{}:{}: expected a JSON object with a number '{}'", file, number, key));
      }
    }
    const auto step = json["step"].get<std::int64_t>();
    if (step <= (reports.empty() ? 0 : reports.back().step)) {
      throw FormatError(
          fmt::format("{}:{}: step is {}, expected more than the line before", file, number, step));
    }
    if (step > last) break;
    reports.push_back({.step = step,
                       .loss = json["loss"].get<double>(),
                       .gradient_norm = json["gradient_norm"].get<double>(),
                       .learning_rate = json["learning_rate"].get<double>()});
  }
  return reports;
}

void replay(const std::vector<RecordedReport>& reports, TracedTraining& training,
            Comparison& comparison) {
  for (const RecordedReport& report : reports) {
    const std::int64_t before = training.run().step;
    double sum = 0;
    while (training.run().step < report.step) {
      training.step();
      sum += training.result().loss;
    }
    const TracedTraining::Result now = training.result();
    comparison.add(report.step, trace_of(report),
                   trace_of({.step = report.step,
                             .loss = sum / static_cast<double>(report.step - before),
                             .gradient_norm = now.gradient_norm,
                             .learning_rate = now.learning_rate}));
  }
}

}  // namespace carousel
