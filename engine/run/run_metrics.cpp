#include "engine/run/run_metrics.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "engine/files/atomic.h"

namespace carousel {
namespace {

double seconds_so_far(const std::filesystem::path& path) {
  std::istringstream text(read_file(path));
  double seconds = 0;
  for (std::string line; std::getline(text, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.contains("seconds") && json["seconds"].is_number()) {
      seconds = json["seconds"].get<double>();
    }
  }
  return seconds;
}

void add_scores(const Evaluation& validation, std::vector<MetricField>& line) {
  for (const Score& score : validation.scores) {
    line.push_back({"validation_" + score.name, score.value});
  }
}

}  // namespace

RunMetrics::RunMetrics(const std::filesystem::path& file, std::int64_t last_step,
                       TrainObserver* next)
    : seconds_(0), file_(file, last_step), next_(next) {
  seconds_ = seconds_so_far(file);  // after what the last checkpoint does not know was cut off
}

void RunMetrics::on_step(const TrainingRun& run, const Arena& arena) {
  if (next_ != nullptr) next_->on_step(run, arena);
}

void RunMetrics::on_report(const Report& r) {
  std::vector<MetricField> line{{"step", r.step}};
  if (!r.belated) {
    line.insert(
        line.end(),
        {{"epoch", r.epoch}, {"tokens", r.tokens}, {"seconds", r.seconds}, {"loss", r.loss}});
    for (const Score& term : r.terms) line.push_back({"loss_" + term.name, term.value});
    line.insert(line.end(), {{"gradient_norm", r.gradient_norm},
                             {"learning_rate", r.learning_rate},
                             {"tokens_per_second", r.tokens_per_second}});
  }
  if (r.validation) add_scores(*r.validation, line);
  if (r.averaged > 0) line.push_back({"averaged", r.averaged});
  if (r.belated) {
    file_.extend_last(line);
  } else {
    file_.append(line);
  }
  if (next_ != nullptr) next_->on_report(r);
}

void RunMetrics::on_progress(std::string_view phase, std::int64_t done, std::int64_t all) {
  if (next_ != nullptr) next_->on_progress(phase, done, all);
}

void RunMetrics::on_fit(const FitReport& r) {
  std::vector<MetricField> line{{"step", r.step}};
  if (!r.validation) {
    line.insert(line.end(), {{"tokens", r.tokens}, {"seconds", r.seconds}});
    if (r.loss) line.push_back({"loss", *r.loss});
    line.push_back({"tokens_per_second", static_cast<double>(r.tokens) / r.seconds});
  } else {
    add_scores(*r.validation, line);
  }
  file_.extend_last(line);
  if (next_ != nullptr) next_->on_fit(r);
}

void RunMetrics::before_save() {
  file_.sync();
  if (next_ != nullptr) next_->before_save();
}

void RunMetrics::on_save(std::int64_t step, bool is_best) {
  if (next_ != nullptr) next_->on_save(step, is_best);
}

void RunMetrics::on_sample(const TrainingRun& run) {
  if (next_ != nullptr) next_->on_sample(run);
}

void RunMetrics::on_graph_refused(const std::string& why) {
  if (next_ != nullptr) next_->on_graph_refused(why);
}

void RunMetrics::on_notice(const std::string& what) {
  if (next_ != nullptr) next_->on_notice(what);
}

}  // namespace carousel
