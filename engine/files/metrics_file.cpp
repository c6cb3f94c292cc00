#include "engine/files/metrics_file.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "kernels/common/check.h"

namespace carousel {
namespace {

std::optional<std::int64_t> step_of(std::string_view line) {
  const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  const auto step = json.find("step");
  if (step == json.end() || !step->is_number_integer()) return std::nullopt;
  return step->get<std::int64_t>();
}

}  // namespace

std::string metrics_line(std::span<const MetricField> metrics) {
  nlohmann::ordered_json line = nlohmann::ordered_json::object();
  for (const MetricField& metric : metrics) {
    const double* number = std::get_if<double>(&metric.value);
    if (number != nullptr && !std::isfinite(*number)) {
      line[metric.name] = std::isnan(*number) ? "nan" : *number > 0 ? "inf" : "-inf";
    } else {
      std::visit([&](const auto& value) { line[metric.name] = value; }, metric.value);
    }
  }
  // A text that is not UTF-8 must not stop a training run: its bad bytes become U+FFFD.
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::size_t bytes_up_to_step(std::string_view text, std::int64_t last_step,
                             const std::string& file) {
  std::size_t begin = 0;
  for (int line = 1;; ++line) {
    const std::size_t end = text.find('\n', begin);
    if (end == std::string_view::npos) return begin;
    const auto step = step_of(text.substr(begin, end - begin));
    if (!step) {
      throw FormatError(
          fmt::format("{}:{}: expected a JSON object with a whole number 'step'", file, line));
    }
    if (*step > last_step) return begin;
    begin = end + 1;
  }
}

MetricsFile::MetricsFile(const std::filesystem::path& path, std::int64_t last_step,
                         SystemCalls& calls)
    : calls_(calls) {
  file_.emplace(path, OutputFile::Mode::append, calls);
  const std::string text = last_step < 0 ? std::string() : read_file(path);
  file_->truncate(bytes_up_to_step(text, last_step, path.string()));
  file_->sync();
  sync_folder(path.has_parent_path() ? path.parent_path() : ".", calls);
}

void MetricsFile::move_to(const std::filesystem::path& path) {
  const std::string lines = file_->content();
  const bool is_there = std::filesystem::exists(path);
  file_.emplace(path, OutputFile::Mode::append, calls_);
  if (!is_there) file_->write(lines);
}

void MetricsFile::extend_last(std::span<const MetricField> metrics) {
  const std::string text = file_->content();
  const std::size_t begin = text.size() < 2 ? 0 : text.rfind('\n', text.size() - 2) + 1;
  const std::string_view last = std::string_view(text).substr(begin);
  const std::string more = metrics_line(metrics.subspan(1));
  if (!last.ends_with("}\n") || step_of(last) != std::get<std::int64_t>(metrics.front().value)) {
    return append(metrics);
  }
  file_->truncate(begin);
  file_->write(fmt::format("{},{}\n", last.substr(0, last.size() - 2), more.substr(1)));
}

void MetricsFile::append(std::span<const MetricField> metrics) {
  file_->write(metrics_line(metrics) + "\n");
}

}  // namespace carousel
