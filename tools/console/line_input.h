#pragma once

#include <string>
#include <vector>

#include "engine/text/tokenizer.h"

namespace carousel {

/// The lines of a file, or of standard input as they arrive.
class LineInput {
 public:
  /// An empty path and "-" are standard input. IoError for a file that cannot be opened.
  explicit LineInput(const std::string& path);
  ~LineInput();
  LineInput(const LineInput&) = delete;
  LineInput& operator=(const LineInput&) = delete;

  const std::string& name() const { return name_; }
  /// The next lines, with their newlines: waits for one and takes what has arrived with it, up to
  /// about a megabyte. Nothing at the end or once interrupted(). FormatError for an input without a
  /// byte.
  std::vector<std::string> next();

 private:
  bool read_more();
  std::string name_;
  int file_ = 0;
  std::string rest_;  ///< a line whose end has not arrived
  bool started_ = false, ended_ = false;
};

/// Whether a path stands for standard input.
bool is_standard_input(const std::string& path);

/// All of standard input.
std::string standard_input();

/// The text of a file, or all of standard input.
Text text_of_input(const std::string& path);

}  // namespace carousel
