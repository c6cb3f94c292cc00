#include "tools/console/terminal.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>

namespace carousel {
namespace {

constexpr std::size_t kGap = 2;  ///< blanks between columns

/// The bytes of the first `columns` code points.
std::size_t bytes_of(std::string_view text, std::size_t columns) {
  std::size_t at = 0;
  for (; at < text.size(); ++at) {
    const bool begins = (static_cast<unsigned char>(text[at]) & 0xC0U) != 0x80U;
    if (begins && columns-- == 0) break;
  }
  return at;
}

/// Where a line goes on that does not fit.
std::size_t hanging(std::string_view line, std::size_t width) {
  const std::size_t indent = std::min(line.find_first_not_of(' '), line.size());
  const std::size_t gap = line.find("  ", indent);
  if (gap != std::string_view::npos) {
    const std::size_t second = line.find_first_not_of(' ', gap);
    if (second != std::string_view::npos && columns_of(line.substr(0, second)) <= width * 2 / 3) {
      return columns_of(line.substr(0, second));
    }
  }
  return std::min(indent + kGap, width / 2);
}

void wrap_line(std::string_view line, std::size_t width, std::string& text) {
  const std::string further(hanging(line, width), ' ');
  std::size_t margin = 0;  ///< columns that the line has before what is left of it
  while (margin + columns_of(line) > width) {
    const std::size_t room = bytes_of(line, width - margin);
    const std::size_t begin = std::min(line.find_first_not_of(' '), line.size());
    std::size_t blank = line[room] == ' ' ? room : line.rfind(' ', room);
    if (blank == std::string_view::npos || blank <= begin || blank < further.size() - margin) {
      blank = line.find(' ', std::max(room, begin));  // a word that is too long
    }
    if (blank == std::string_view::npos) break;
    const std::size_t end = line.find_last_not_of(' ', blank);
    text += line.substr(0, end + 1);
    line.remove_prefix(std::min(line.find_first_not_of(' ', blank), line.size()));
    if (line.empty()) return;
    text += '\n' + further;
    margin = further.size();
  }
  text += line;
}

/// How many columns of the terminal those of a table take.
std::size_t total(const std::vector<std::size_t>& widths, const std::vector<bool>& shown) {
  std::size_t sum = 0;
  for (std::size_t i = 0; i < widths.size(); ++i) sum += shown[i] ? widths[i] + kGap : 0;
  return sum - std::min(sum, kGap);
}

/// Which columns are shown, given the width of each.
std::vector<bool> chosen(const std::vector<TableColumn>& columns,
                         const std::vector<std::size_t>& widths, std::size_t width) {
  std::vector<bool> shown(columns.size(), true);
  while (width > 0 && total(widths, shown) > width) {
    std::size_t last = columns.size();  // of the highest rank, the last
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const bool may_go = shown[i] && columns[i].rank > 0;
      if (may_go && (last == columns.size() || columns[i].rank >= columns[last].rank)) last = i;
    }
    if (last == columns.size()) break;
    shown[last] = false;
  }
  return shown;
}

std::string padded(const std::string& cell, std::size_t width, bool numbers) {
  const std::string blanks(width - std::min(width, columns_of(cell)), ' ');
  return numbers ? blanks + cell : cell + blanks;
}

}  // namespace

std::size_t terminal_width(int descriptor) {
  if (isatty(descriptor) == 0) return 0;
  if (const char* const text = std::getenv("COLUMNS")) {
    std::size_t width = 0;
    const char* const end = text + std::strlen(text);
    if (const auto read = std::from_chars(text, end, width); read.ptr == end && width > 0) {
      return width;
    }
  }
  winsize size{};
  return ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

std::string wrapped(std::string_view text, std::size_t width) {
  if (width == 0) return std::string(text);
  std::string result;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    wrap_line(text.substr(0, end), width, result);
    if (end < text.size()) result += '\n';
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return result;
}

std::string shortened(const std::string& text, std::size_t width) {
  if (columns_of(text) <= width) return text;
  return text.substr(0, bytes_of(text, width - std::min<std::size_t>(width, 1))) + "…";
}

std::string table_text(const std::vector<TableColumn>& columns,
                       const std::vector<std::vector<std::string>>& rows, std::size_t width) {
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    widths.push_back(columns_of(columns[i].title));
    for (const auto& row : rows) {
      if (i < row.size()) widths[i] = std::max(widths[i], columns_of(row[i]));
    }
  }
  const std::vector<bool> shown = chosen(columns, widths, width);
  if (const std::size_t all = total(widths, shown); width > 0 && all > width) {
    widths[0] -= std::min(widths[0], all - width);
  }
  std::string text;
  const auto add = [&](const auto& cell_of, const std::string& remark) {
    std::string line;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      if (!shown[i]) continue;
      if (!line.empty()) line.append(kGap, ' ');
      const std::string cell = i == 0 ? shortened(cell_of(i), widths[0]) : cell_of(i);
      line += padded(cell, widths[i], columns[i].numbers);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    if (!remark.empty()) line += "  " + remark;
    text += (width > 0 ? shortened(line, width) : line) + '\n';
  };
  add([&](std::size_t i) { return columns[i].title; }, {});
  for (const auto& row : rows) {
    add([&](std::size_t i) { return i < row.size() ? row[i] : std::string(); },
        row.size() > columns.size() ? row.back() : std::string());
  }
  std::vector<std::string> hidden;
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (!shown[i]) hidden.push_back(columns[i].title);
  }
  if (!hidden.empty()) {
    text +=
        wrapped(fmt::format("not shown, for want of room: {}\n", fmt::join(hidden, ", ")), width);
  }
  return text;
}

}  // namespace carousel
