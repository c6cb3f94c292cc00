#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
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

/// A run's `metrics.jsonl`: one JSON object a line, its fields in the order given. JSON has no
/// word for the numbers that are none, so they are the strings "nan", "inf" and "-inf".
class MetricsFile {
 public:
  /// Opens the file for appending, after cutting off what came after `last_step`: lines of later
  /// steps, and a last line without an end, which a kill leaves. -1 starts afresh. FormatError if
  /// a line in between is no object with a whole number "step".
  MetricsFile(const std::filesystem::path& path, std::int64_t last_step,
              SystemCalls& calls = kernel_calls());

  /// Writes a line, at once and in one piece; it survives the end of the process.
  void append(std::span<const MetricField> metrics);
  void append(std::initializer_list<MetricField> metrics) {
    append(std::span(metrics.begin(), metrics.size()));
  }
  /// Makes the lines so far survive the end of the machine too: to call before a checkpoint.
  void sync() { file_.sync(); }

 private:
  OutputFile file_;
};

/// The line as append() writes it, without its end.
std::string metrics_line(std::span<const MetricField> metrics);

/// How many bytes of a metrics file's text belong to steps up to `last_step`.
std::size_t bytes_up_to_step(std::string_view text, std::int64_t last_step,
                             const std::string& file);

}  // namespace carousel
