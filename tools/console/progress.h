#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace carousel {

/// A line on standard error that shows how far a long task is. On a terminal it redraws itself at
/// most ten times a second; elsewhere it stays silent, for the reports are lines of their own.
class ProgressBar {
 public:
  ProgressBar();
  /// `note` is shown as it is, e.g. "loss 1.52  25.1k tokens/s".
  void show(std::int64_t done, std::int64_t total, const std::string& note);
  /// Prints a whole line above the bar, as talk() does, or as it is.
  void line(const std::string& text);
  void verbatim(const std::string& text);
  void clear();
  bool on_terminal() const { return on_terminal_; }

 private:
  using Clock = std::chrono::steady_clock;
  bool on_terminal_;
  bool drawn_ = false;
  std::int64_t first_ = -1;  ///< where this session began, for the time left
  Clock::time_point began_, shown_;
};

/// "3:07" or "1:02:09".
std::string duration_text(double seconds);
/// "1 token", "2 tokens".
std::string counted(std::int64_t count, const char* noun);
/// "1 token", "25.1k tokens".
std::string about(std::int64_t count, const char* noun);
/// "950", "25.1k", "3.42M".
std::string count_text(double count);
/// "812 KB", "38.2 MB": powers of 1000.
std::string bytes_text(std::size_t bytes);

}  // namespace carousel
