// kill_at_call TEXT K COMMAND…
//
// Runs a command and kills it, as by SIGKILL, at the entry of its K-th system call (from 0) that
// changes files, counting from the first whose path contains TEXT. The call itself does not happen.
// Prints how many calls there were; returns 137 if it killed, 126 where tracing is forbidden, else
// what the command returned.
//
// Only calls that change files are counted. Between two of them the disk does not change, so a kill
// there has the same effect as one at the second.
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

/// A system call that changes files, and which of its arguments are paths (-1: none).
struct Call {
  std::uint64_t number;
  int path, other_path;
};

constexpr Call kCalls[] = {
    {SYS_openat, 1, -1},   {SYS_write, -1, -1},     {SYS_writev, -1, -1},    {SYS_pwrite64, -1, -1},
    {SYS_fsync, -1, -1},   {SYS_fdatasync, -1, -1}, {SYS_ftruncate, -1, -1}, {SYS_mkdirat, 1, -1},
    {SYS_symlinkat, 0, 2}, {SYS_unlinkat, 1, -1},   {SYS_renameat2, 1, 3},
#ifdef SYS_renameat
    {SYS_renameat, 1, 3},
#endif
#ifdef SYS_open  // x86-64 has the older calls too, and the C library uses them
    {SYS_open, 0, -1},     {SYS_mkdir, 0, -1},      {SYS_symlink, 0, 1},     {SYS_unlink, 0, -1},
    {SYS_rmdir, 0, -1},    {SYS_rename, 0, 1},
#endif
};

std::string text_at(pid_t process, std::uint64_t address) {
  std::array<char, 512> bytes{};
  const iovec to{bytes.data(), bytes.size() - 1};
  // Up to the end of the page only: the next page may not be mapped.
  const std::size_t page = 4096;
  const iovec from{reinterpret_cast<void*>(address),
                   std::min(bytes.size() - 1, page - address % page)};
  if (::process_vm_readv(process, &to, 1, &from, 1, 0) < 0) return "";
  return bytes.data();
}

class Tracer {
 public:
  Tracer(std::string_view text, long at) : text_(text), at_(at) {}

  /// Returns the exit status of this program.
  int follow(pid_t child) {
    int status = 0;
    ::waitpid(child, &status, 0);  // stopped at its exec
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE |
                         PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;
    ::ptrace(PTRACE_SETOPTIONS, child, nullptr, options);
    ::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    for (;;) {
      const pid_t thread = ::waitpid(-1, &status, __WALL);
      if (thread < 0 && errno == EINTR) continue;
      if (thread < 0) return 1;
      if (WIFEXITED(status) || WIFSIGNALED(status)) {
        if (thread != child) continue;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      }
      int signal_to_pass = 0;
      if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
        if (is_the_one(thread)) {
          ::kill(child, SIGKILL);
          // The end of the first thread is reported after those of all others.
          while (::waitpid(-1, &status, __WALL) != child || !WIFSIGNALED(status)) {
          }
          return 137;
        }
      } else if (WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSTOP) {
        signal_to_pass = WSTOPSIG(status);
      }
      ::ptrace(PTRACE_SYSCALL, thread, nullptr, static_cast<long>(signal_to_pass));
    }
  }
  long count() const { return count_; }

 private:
  bool is_the_one(pid_t thread) {
    struct __ptrace_syscall_info info {};
    const auto size = reinterpret_cast<void*>(sizeof info);
    if (::ptrace(PTRACE_GET_SYSCALL_INFO, thread, size, &info) <= 0) return false;
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return false;
    for (const Call& call : kCalls) {
      if (call.number != info.entry.nr) continue;
      for (const int path : {call.path, call.other_path}) {
        if (counting_ || path < 0) continue;
        counting_ = text_at(thread, info.entry.args[path]).find(text_) != std::string::npos;
      }
      return counting_ && count_++ == at_;
    }
    return false;
  }

  std::string text_;
  long at_, count_ = 0;
  bool counting_ = false;
};

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) {
    std::fprintf(stderr, "usage: kill_at_call TEXT K COMMAND...\n");
    return 2;
  }
  const pid_t child = ::fork();
  if (child == 0) {
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) {
      std::perror("kill_at_call: ptrace");
      ::_exit(126);
    }
    ::execv(arguments[3], arguments + 3);
    std::perror(arguments[3]);
    ::_exit(127);
  }
  Tracer tracer(arguments[1], std::strtol(arguments[2], nullptr, 10));
  const int status = tracer.follow(child);
  std::printf("%ld\n", tracer.count());
  return status;
}
