#include "tools/console/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "tools/console/streams.h"
#include "tools/console/terminal.h"

namespace carousel {

std::string duration_text(double seconds) {
  const auto s = static_cast<std::int64_t>(std::max(0.0, std::round(seconds)));
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string counted(std::int64_t count, const char* noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string about(std::int64_t count, const char* noun) {
  return fmt::format("{} {}{}", count_text(static_cast<double>(count)), noun,
                     count == 1 ? "" : "s");
}

std::string count_text(double count) {
  if (count >= 1e6) return fmt::format("{:.2f}M", count / 1e6);
  if (count >= 1e3) return fmt::format("{:.1f}k", count / 1e3);
  return fmt::format("{:.0f}", count);
}

std::string bytes_text(std::size_t bytes) {
  const auto b = static_cast<double>(bytes);
  if (b >= 1e9) return fmt::format("{:.2f} GB", b / 1e9);
  if (b >= 1e6) return fmt::format("{:.1f} MB", b / 1e6);
  return fmt::format("{:.0f} KB", b / 1e3);
}

ProgressBar::ProgressBar() : on_terminal_(isatty(STDERR_FILENO) != 0) {}

void ProgressBar::show(std::int64_t done, std::int64_t total, const std::string& note) {
  const auto now = Clock::now();
  if (first_ < 0) {
    first_ = done;
    began_ = now;
  }
  if (!on_terminal_ || (drawn_ && done < total && now - shown_ < std::chrono::milliseconds(100))) {
    return;
  }
  shown_ = now;
  drawn_ = true;
  const double elapsed = std::chrono::duration<double>(now - began_).count();
  const std::string left = done > first_
                               ? duration_text(elapsed * static_cast<double>(total - done) /
                                               static_cast<double>(done - first_))
                               : "-:--";
  const std::string text = fmt::format(" {}/{}  {}  {} left", done, total, note, left);
  const auto width = static_cast<std::int64_t>(terminal_width(STDERR_FILENO));
  const std::int64_t bar = std::clamp<std::int64_t>(width - std::ssize(text) - 3, 0, 40);
  const std::int64_t full = bar * done / std::max<std::int64_t>(total, 1);
  const std::string drawn = std::string(static_cast<std::size_t>(full), '=') +
                            std::string(static_cast<std::size_t>(bar - full), '.') + text;
  // A line that wraps could not be redrawn.
  talk_verbatim("\r\033[K" + shortened(drawn, static_cast<std::size_t>(width)));
}

void ProgressBar::clear() {
  if (drawn_) talk_verbatim("\r\033[K");
  drawn_ = false;
}

void ProgressBar::line(const std::string& text) {
  clear();
  talk(text + "\n");
}

void ProgressBar::verbatim(const std::string& text) {
  clear();
  talk_verbatim(text + "\n");
}

}  // namespace carousel
