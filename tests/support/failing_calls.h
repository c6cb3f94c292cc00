#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "engine/files/atomic.h"

namespace carousel::test {

/// How that call fails.
enum class Failure {
  none,            ///< only counts the calls
  kill,            ///< the process ends, as by SIGKILL: no destructor runs
  kill_half_done,  ///< the same, after half of a write; after the whole of any other call
  no_space,        ///< this call fails with ENOSPC, later ones work
  full_disk,       ///< this call and every later one that needs space fails with ENOSPC
  bad_disk,        ///< this call fails with EIO
  interrupted,     ///< this call is interrupted by a signal once (EINTR), and writes come up short
};

/// System calls; the one with index `at` fails.
class FailingCalls final : public SystemCalls {
 public:
  explicit FailingCalls(Failure failure = Failure::none, int at = -1)
      : failure_(failure), at_(at) {}

  int count() const { return count_; }

  int open(const char* path, int flags, mode_t mode) override {
    return around([&] { return SystemCalls::open(path, flags, mode); }, /*needs_space=*/true);
  }
  ssize_t write(int file, const void* data, std::size_t bytes) override {
    if (failure_ == Failure::kill_half_done && count_ == at_) {
      SystemCalls::write(file, data, bytes / 2);
      ::_exit(137);
    }
    if (failure_ == Failure::interrupted) bytes = std::min<std::size_t>(bytes, 5);
    return around([&] { return SystemCalls::write(file, data, bytes); }, /*needs_space=*/true);
  }
  int fsync(int) override {
    // Not executed: a killed process loses nothing of the page cache, and ten thousand waits for the
    // disk would take most of these tests' time.
    return around([] { return 0; });
  }
  int ftruncate(int file, off_t bytes) override {
    return around([&] { return SystemCalls::ftruncate(file, bytes); });
  }
  int close(int file) override {
    // The kernel releases the descriptor even if close() reports an error.
    const int result = SystemCalls::close(file);
    return around([&] { return result; });
  }
  int mkdir(const char* path, mode_t mode) override {
    return around([&] { return SystemCalls::mkdir(path, mode); }, /*needs_space=*/true);
  }
  int rename(const char* from, const char* to) override {
    return around([&] { return SystemCalls::rename(from, to); });
  }
  int exchange(const char* a, const char* b) override {
    return around([&] { return SystemCalls::exchange(a, b); });
  }
  int symlink(const char* target, const char* link) override {
    return around([&] { return SystemCalls::symlink(target, link); }, /*needs_space=*/true);
  }
  int unlink(const char* path) override {
    return around([&] { return SystemCalls::unlink(path); });
  }
  int rmdir(const char* path) override {
    return around([&] { return SystemCalls::rmdir(path); });
  }

 private:
  template <class Call>
  auto around(Call call, bool needs_space = false) -> decltype(call()) {
    const int number = count_++;
    const auto fail = [](int error) {
      errno = error;
      return -1;
    };
    if (failure_ == Failure::full_disk && at_ >= 0 && number >= at_ && needs_space) {
      return fail(ENOSPC);
    }
    if (number != at_) return call();
    switch (failure_) {
      case Failure::kill:
        ::_exit(137);
      case Failure::kill_half_done:
        call();
        ::_exit(137);
      case Failure::no_space:
        return fail(ENOSPC);
      case Failure::bad_disk:
        return fail(EIO);
      case Failure::interrupted:
        return fail(EINTR);
      case Failure::none:
      case Failure::full_disk:
        break;
    }
    return call();
  }

  Failure failure_;
  int at_;
  int count_ = 0;
};

}  // namespace carousel::test
