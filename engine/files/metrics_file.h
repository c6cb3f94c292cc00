#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "engine/files/atomic.h"

namespace carousel {

/// One field of a line of metrics.
struct MetricField {
  std::string name;
  std::variant<std::int64_t, double, std::string> value;
};

/// A run's `metrics.jsonl`: one JSON object a line, its fields in the order given. NaN and
/// infinities, which JSON does not have, are the strings "nan", "inf" and "-inf".
class MetricsFile {
 public:
  /// Opens the file for appending, after removing the lines of steps after `last_step` and an
  /// unfinished last line, which a killed process leaves. −1 removes all lines. FormatError if
  /// another line is not a JSON object with a whole number "step".
  MetricsFile(const std::filesystem::path& path, std::int64_t last_step,
              SystemCalls& calls = kernel_calls());

  /// Writes a line at once, in one system call. The line survives the end of the process.
  void append(std::span<const MetricField> metrics);
  void append(std::initializer_list<MetricField> metrics) {
    append(std::span(metrics.begin(), metrics.size()));
  }
  /// Adds what the last line does not have to it; `metrics` begins with the step. Appends them if the
  /// last line is of another step.
  void extend_last(std::span<const MetricField> metrics);
  /// The file goes on under this path: with all its lines, if its folder was removed and made anew.
  void move_to(const std::filesystem::path& path);
  /// Makes the lines so far survive a power failure too. Call it before a checkpoint is saved.
  void sync() { file_->sync(); }

 private:
  std::optional<OutputFile> file_;
  SystemCalls& calls_;
};

/// The line as append() writes it, without its end.
std::string metrics_line(std::span<const MetricField> metrics);

/// How many bytes of a metrics file's text belong to steps up to `last_step`.
std::size_t bytes_up_to_step(std::string_view text, std::int64_t last_step,
                             const std::string& file);

}  // namespace carousel
