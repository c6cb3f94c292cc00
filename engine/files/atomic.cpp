#include "engine/files/atomic.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/common/check.h"

namespace carousel {
namespace fs = std::filesystem;

int SystemCalls::open(const char* path, int flags, mode_t mode) {
  return ::open(path, flags, mode);
}
ssize_t SystemCalls::write(int file, const void* data, std::size_t bytes) {
  return ::write(file, data, bytes);
}
int SystemCalls::fsync(int file) { return ::fsync(file); }
int SystemCalls::ftruncate(int file, off_t bytes) { return ::ftruncate(file, bytes); }
int SystemCalls::close(int file) { return ::close(file); }
int SystemCalls::mkdir(const char* path, mode_t mode) { return ::mkdir(path, mode); }
int SystemCalls::rename(const char* from, const char* to) { return ::rename(from, to); }
int SystemCalls::exchange(const char* a, const char* b) {
  return ::renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}
int SystemCalls::symlink(const char* target, const char* link) { return ::symlink(target, link); }
int SystemCalls::unlink(const char* path) { return ::unlink(path); }
int SystemCalls::rmdir(const char* path) { return ::rmdir(path); }
std::uint64_t SystemCalls::available(const char* path) {
  struct statvfs status {};
  const bool known = ::statvfs(path, &status) == 0 && status.f_blocks > 0;
  return known ? std::uint64_t{status.f_bavail} * status.f_frsize
               : std::numeric_limits<std::uint64_t>::max();
}

SystemCalls& kernel_calls() {
  static SystemCalls calls;
  return calls;
}

namespace {

/// The result of a call, repeated while a signal interrupts it.
template <class Call>
auto uninterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

void expect_success(int result, const char* action, const fs::path& path) {
  if (result != 0) throw_io_error(action, path.string());
}

int open_file(const fs::path& path, int flags, SystemCalls& calls) {
  const int file = uninterrupted([&] { return calls.open(path.c_str(), flags | O_CLOEXEC, 0666); });
  if (file < 0) throw_io_error("open", path.string());
  return file;
}

int flags_of(OutputFile::Mode mode) {
  if (mode == OutputFile::Mode::overwrite) return 0;
  return O_CREAT | (mode == OutputFile::Mode::create ? O_EXCL : O_APPEND);
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

fs::path temporary_name(const fs::path& path) {
  return folder_of(path) / fmt::format(".{}.tmp.{}", path.filename().string(), ::getpid());
}

/// Removes a file, a link or a folder with everything in it. Not durable, not in one step.
void remove_tree(const fs::path& path, SystemCalls& calls) {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (status.type() == fs::file_type::not_found) return;
  if (status.type() != fs::file_type::directory) {
    return expect_success(calls.unlink(path.c_str()), "remove", path);
  }
  std::vector<fs::path> entries;
  for (const auto& entry : fs::directory_iterator(path, error)) entries.push_back(entry.path());
  for (const fs::path& entry : entries) remove_tree(entry, calls);
  expect_success(calls.rmdir(path.c_str()), "remove", path);
}

/// For destructors, which run while the error is already being reported. What cannot be removed has
/// a temporary name.
void try_to_remove(const fs::path& path, SystemCalls& calls) noexcept {
  try {
    remove_tree(path, calls);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "carousel: %s\n", error.what());  // which never throws
  }
}

}  // namespace

void sync_folder(const fs::path& folder, SystemCalls& calls) {
  const int file = open_file(folder, O_RDONLY | O_DIRECTORY, calls);
  const int result = uninterrupted([&] { return calls.fsync(file); });
  const int error = errno;
  calls.close(file);
  // Some network file systems have no fsync for folders; they order renames by themselves.
  if (result != 0 && error != EINVAL) {
    errno = error;
    throw_io_error("fsync", folder.string());
  }
}

OutputFile::OutputFile(fs::path path, Mode mode, SystemCalls& calls)
    : path_(std::move(path)),
      calls_(calls),
      file_(open_file(path_, O_WRONLY | flags_of(mode), calls)) {}

OutputFile::~OutputFile() {
  if (file_ >= 0) calls_.close(file_);
}

void OutputFile::write(const void* data, std::size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = uninterrupted([&] { return calls_.write(file_, next, bytes); });
    if (written == 0) errno = EIO;  // no progress and no reason given: do not spin
    if (written <= 0) throw_io_error("write", path_.string());
    next += written;
    bytes -= static_cast<std::size_t>(written);
  }
}

void OutputFile::sync() {
  expect_success(uninterrupted([&] { return calls_.fsync(file_); }), "fsync", path_);
}

void OutputFile::truncate(std::size_t bytes) {
  const auto length = static_cast<off_t>(bytes);
  expect_success(uninterrupted([&] { return calls_.ftruncate(file_, length); }), "truncate", path_);
}

void OutputFile::finish() {
  sync();
  // Linux releases the descriptor even if close() fails, so it is not repeated.
  const int result = calls_.close(std::exchange(file_, -1));
  if (result != 0 && errno != EINTR) throw_io_error("close", path_.string());
}

std::string OutputFile::content() const {
  return read_file(fmt::format("/proc/self/fd/{}", file_));
}

NewFile::NewFile(fs::path path, SystemCalls& calls)
    : path_(std::move(path)),
      calls_(calls),
      file_((remove_tree(temporary_name(path_), calls), temporary_name(path_)),
            OutputFile::Mode::create, calls) {}

NewFile::~NewFile() {
  if (!committed_) try_to_remove(file_.path(), calls_);
}

void NewFile::commit() {
  file_.finish();
  expect_success(calls_.rename(file_.path().c_str(), path_.c_str()), "rename to", path_);
  committed_ = true;
  sync_folder(folder_of(path_), calls_);
}

void write_file_atomically(const fs::path& path, std::string_view bytes, SystemCalls& calls) {
  NewFile file(path, calls);
  file.file().write(bytes);
  file.commit();
}

std::string read_file(const fs::path& path, std::size_t most) {
  const int file = open_file(path, O_RDONLY, kernel_calls());
  std::string text;
  char part[1 << 16];
  ssize_t bytes = 0;
  while (text.size() < most &&
         (bytes = uninterrupted([&] { return ::read(file, part, sizeof part); })) > 0) {
    text.append(part, std::min(static_cast<std::size_t>(bytes), most - text.size()));
  }
  const int error = errno;
  ::close(file);
  errno = error;
  if (bytes < 0) throw_io_error("read", path.string());
  return text;
}

NewFolder::NewFolder(fs::path path, SystemCalls& calls)
    : path_(std::move(path)), temporary_(temporary_name(path_)), calls_(calls) {
  remove_tree(temporary_, calls);
  expect_success(calls.mkdir(temporary_.c_str(), 0777), "make folder", temporary_);
}

NewFolder::~NewFolder() {
  if (!committed_) try_to_remove(temporary_, calls_);
}

void NewFolder::commit() {
  sync_folder(temporary_, calls_);
  const bool replaces = fs::exists(fs::symlink_status(path_));
  expect_success(replaces ? calls_.exchange(temporary_.c_str(), path_.c_str())
                          : calls_.rename(temporary_.c_str(), path_.c_str()),
                 "rename to", path_);
  committed_ = true;
  sync_folder(folder_of(path_), calls_);
  if (replaces) remove_tree(temporary_, calls_);
}

void replace_link(const fs::path& link, const fs::path& target, SystemCalls& calls) {
  const fs::path temporary = temporary_name(link);
  remove_tree(temporary, calls);
  expect_success(calls.symlink(target.c_str(), temporary.c_str()), "make link", temporary);
  if (calls.rename(temporary.c_str(), link.c_str()) != 0) {
    const int error = errno;
    try_to_remove(temporary, calls);
    errno = error;
    throw_io_error("rename to", link.string());
  }
  sync_folder(folder_of(link), calls);
}

void make_folders(const fs::path& path, SystemCalls& calls) {
  if (fs::is_directory(path)) return;
  const fs::path parent = folder_of(path);
  make_folders(parent, calls);
  if (calls.mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) {
    throw_io_error("make folder", path.string());
  }
  sync_folder(parent, calls);
}

void remove_folder(const fs::path& path, SystemCalls& calls) {
  const fs::path temporary = temporary_name(path);
  remove_tree(temporary, calls);
  expect_success(calls.rename(path.c_str(), temporary.c_str()), "remove", path);
  // Without this, a power cut could bring the name back over a folder that has lost its files.
  sync_folder(folder_of(path), calls);
  remove_tree(temporary, calls);
}

bool is_temporary_name(std::string_view name) {
  const std::size_t mark = name.rfind(".tmp.");
  if (!name.starts_with('.') || mark == std::string_view::npos || mark < 2) return false;
  const std::string_view process = name.substr(mark + 5);
  return !process.empty() && process.find_first_not_of("0123456789") == std::string_view::npos;
}

int remove_leftovers(const fs::path& folder, SystemCalls& calls) {
  std::error_code error;
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (is_temporary_name(entry.path().filename().string())) leftovers.push_back(entry.path());
  }
  for (const fs::path& leftover : leftovers) remove_tree(leftover, calls);
  return static_cast<int>(leftovers.size());
}

FolderLock::FolderLock(const fs::path& folder)
    : folder_(-1), file_(open_file(folder / ".lock", O_RDWR | O_CREAT, kernel_calls())) {
  if (uninterrupted([&] { return ::flock(file_, LOCK_EX | LOCK_NB); }) == 0) {
    folder_ = ::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);  // −1 finds nothing
    return;
  }
  const int error = errno;
  ::close(file_);
  if (error == EWOULDBLOCK) {
    throw IoError(
        fmt::format("{} is in use by another process, which holds its .lock", folder.string()));
  }
  errno = error;
  throw_io_error("lock", (folder / ".lock").string());
}

FolderLock::~FolderLock() {
  ::close(file_);
  if (folder_ >= 0) ::close(folder_);
}

std::optional<fs::path> FolderLock::where(const fs::path& path) const {
  struct stat locked {};
  if (::fstat(folder_, &locked) != 0) return std::nullopt;
  const auto is_at = [&](const fs::path& place) {
    struct stat there {};
    return ::stat(place.c_str(), &there) == 0 && there.st_dev == locked.st_dev &&
           there.st_ino == locked.st_ino;
  };
  if (is_at(path)) return path;
  std::error_code error;
  const fs::path now = fs::read_symlink(fmt::format("/proc/self/fd/{}", folder_), error);
  if (error || !is_at(now)) return std::nullopt;
  return now;
}

}  // namespace carousel
