#include "engine/files/input_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "kernels/common/check.h"

namespace carousel {

InputFile::InputFile(std::filesystem::path path)
    : path_(std::move(path)), file_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (file_ < 0) throw_io_error("open", path_.string());
  struct stat status {};
  const int result = ::fstat(file_, &status);
  if (result == 0 && S_ISREG(status.st_mode)) {
    size_ = static_cast<std::size_t>(status.st_size);
    return;
  }
  const int error = errno;
  ::close(file_);
  errno = error;
  if (result != 0) throw_io_error("read", path_.string());
  throw FormatError(fmt::format("{} is not a regular file", path_.string()));
}

InputFile::~InputFile() { ::close(file_); }

void InputFile::read(std::size_t offset, void* to, std::size_t bytes) const {
  auto* next = static_cast<std::byte*>(to);
  while (bytes > 0) {
    const ssize_t count = ::pread(file_, next, bytes, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_io_error("read", path_.string());
    if (count == 0) {
      throw FormatError(
          fmt::format("{}: the file was cut short while it was in use: no byte {} of {}",
                      path_.string(), offset, size_));
    }
    next += count;
    offset += static_cast<std::size_t>(count);
    bytes -= static_cast<std::size_t>(count);
  }
}

}  // namespace carousel
