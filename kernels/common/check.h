#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace carousel {

/// Every error Carousel throws. The text is one line: what it is about, what was found, what was
/// expected. Only `main` catches it to print it, and then returns a non-zero status.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct ShapeError : Error {  ///< a caller's tensors disagree
  using Error::Error;
};
struct ConfigError : Error {  ///< an option that is unknown, missing or out of range
  using Error::Error;
};
struct FormatError : Error {  ///< a file whose content is not what its name or header promises
  using Error::Error;
};
struct IoError : Error {  ///< a file operation failed; the text ends with the system's message
  using Error::Error;
};
struct CudaError : Error {  ///< a call of the CUDA runtime or of a CUDA library failed
  using Error::Error;
};

/// The caller's file and line. (clang-tidy 14 does not know std::source_location.)
struct Where {
  const char* file;
  int line;
  static constexpr Where here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

/// Throws ShapeError "<what> is <got>, expected <want>" unless the two agree. `what` begins with
/// the op's name: "recurrent_sequence: weight_hh columns".
void expect_extent(const char* what, std::int64_t got, std::int64_t want);

/// Throws ShapeError "<what> is <got>, expected at least <least>" if it is less.
void expect_at_least(const char* what, std::int64_t got, std::int64_t least);

/// Throws ShapeError "<what> is missing" if `present` is false.
void expect_present(const char* what, bool present);

/// Throws IoError "<action> <path>: <text of errno>".
[[noreturn]] void throw_io_error(const std::string& action, const std::string& path);

}  // namespace carousel
