#include "kernels/common/check.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace carousel {

void expect_extent(const char* what, std::int64_t got, std::int64_t want) {
  if (got != want) throw ShapeError(fmt::format("{} is {}, expected {}", what, got, want));
}

void expect_at_least(const char* what, std::int64_t got, std::int64_t least) {
  if (got < least)
    throw ShapeError(fmt::format("{} is {}, expected at least {}", what, got, least));
}

void expect_present(const char* what, bool present) {
  if (!present) throw ShapeError(fmt::format("{} is missing", what));
}

void throw_io_error(const std::string& action, const std::string& path) {
  throw IoError(fmt::format("{} {}: {}", action, path, std::strerror(errno)));
}

}  // namespace carousel
