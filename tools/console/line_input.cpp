#include "tools/console/line_input.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <iostream>
#include <iterator>
#include <string_view>

#include "kernels/common/check.h"
#include "tools/console/interrupt.h"

namespace carousel {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

bool is_standard_input(const std::string& path) { return path.empty() || path == "-"; }

std::string standard_input() { return {std::istreambuf_iterator<char>(std::cin), {}}; }

Text text_of_input(const std::string& path) {
  if (!is_standard_input(path)) return Text(path);
  return Text::in_memory(standard_input(), "standard input");
}

LineInput::LineInput(const std::string& path)
    : name_(is_standard_input(path) ? "standard input" : path), file_(STDIN_FILENO) {
  if (is_standard_input(path)) return;
  file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0) throw_io_error("opening", path);
}

LineInput::~LineInput() {
  if (file_ != STDIN_FILENO) ::close(file_);
}

bool LineInput::read_more() {
  const std::size_t before = rest_.size();
  rest_.resize(before + kPieceBytes);
  ssize_t count = 0;
  do {
    count = ::read(file_, rest_.data() + before, kPieceBytes);
  } while (count < 0 && errno == EINTR && !interrupted());
  if (interrupted()) count = 0;
  if (count < 0) throw_io_error("reading", name_);
  rest_.resize(before + static_cast<std::size_t>(count));
  if (!started_ && count == 0 && !interrupted()) {
    throw FormatError(fmt::format("{}: line 1, byte 0: the text is empty", name_));
  }
  started_ = true;
  return count > 0;
}

std::vector<std::string> LineInput::next() {
  std::vector<std::string> lines;
  while (lines.empty() && !ended_) {
    const std::size_t searched = rest_.size();
    const bool first = !started_;
    ended_ = !read_more();
    if (first && file_ != STDIN_FILENO && rest_.starts_with(kByteOrderMark)) {
      rest_.erase(0, kByteOrderMark.size());
    }
    std::size_t from = 0;
    for (std::size_t end = rest_.find('\n', searched); end != std::string::npos;
         end = rest_.find('\n', from)) {
      lines.push_back(rest_.substr(from, end + 1 - from));
      from = end + 1;
    }
    rest_.erase(0, from);
    if (ended_ && !rest_.empty()) lines.push_back(std::move(rest_));
  }
  return lines;
}

}  // namespace carousel
