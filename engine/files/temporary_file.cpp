#include "engine/files/temporary_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "kernels/common/check.h"

namespace carousel {

TemporaryFile::TemporaryFile(const std::filesystem::path& folder)
    // A name that remove_leftovers() knows, for a kill before the next line.
    : path_(folder / fmt::format(".sorting.tmp.{}", ::getpid())),
      file_(::open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) {
  if (file_ < 0) throw_io_error("open", path_.string());
  if (::unlink(path_.c_str()) == 0) return;
  const int error = errno;
  ::close(file_);
  errno = error;
  throw_io_error("remove", path_.string());
}

TemporaryFile::~TemporaryFile() { ::close(file_); }

void TemporaryFile::append(const void* data, std::size_t bytes) {
  const auto* next = static_cast<const std::byte*>(data);
  while (bytes > 0) {
    const ssize_t count = ::pwrite(file_, next, bytes, static_cast<off_t>(size_));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw_io_error("write", path_.string());
    next += count;
    size_ += static_cast<std::size_t>(count);
    bytes -= static_cast<std::size_t>(count);
  }
}

void TemporaryFile::read(std::size_t offset, void* to, std::size_t bytes) const {
  auto* next = static_cast<std::byte*>(to);
  while (bytes > 0) {
    const ssize_t count = ::pread(file_, next, bytes, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) errno = ENODATA;
    if (count <= 0) throw_io_error("read", path_.string());
    next += count;
    offset += static_cast<std::size_t>(count);
    bytes -= static_cast<std::size_t>(count);
  }
}

}  // namespace carousel
