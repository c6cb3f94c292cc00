#include "tools/console/streams.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <system_error>

#include "tools/console/terminal.h"

namespace carousel {
namespace {

int output_error = 0;  ///< errno of a write to standard output that failed

/// Past stdio, which loses what it holds if a signal interrupts its write. False: errno tells why.
bool write_all(int stream, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(stream, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

void prepare_standard_streams() {
  for (int stream = 0; stream <= STDERR_FILENO; ++stream) {
    if (::fcntl(stream, F_GETFD) >= 0 || errno != EBADF) continue;
    // Open the wrong way round: using it fails as it does with a closed one. open() takes the
    // lowest descriptor that is free, which is this one.
    if (::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

void talk(std::string_view text) noexcept {
  try {
    talk_verbatim(wrapped(text, terminal_width(STDERR_FILENO)));
  } catch (const std::bad_alloc&) {
    talk_verbatim(text);
  }
}

void talk_verbatim(std::string_view text) noexcept {
  std::fflush(stderr);
  write_all(STDERR_FILENO, text);  // there is nowhere to report a failure
}

void print(std::string_view text) { write_output(wrapped(text, terminal_width(STDOUT_FILENO))); }

void write_output(std::string_view text) {
  if (std::fflush(stdout) == 0 && write_all(STDOUT_FILENO, text)) return;
  output_error = errno;
  throw std::system_error(output_error, std::generic_category(), "writing standard output");
}

std::string output_fault() {
  if (output_error == 0 && std::fflush(stdout) != 0) output_error = errno;
  if (output_error == 0 && std::ferror(stdout) == 0) return {};
  if (output_error == EPIPE) {
    std::signal(SIGPIPE, SIG_DFL);
    std::raise(SIGPIPE);
  }
  return std::string("writing standard output: ") +
         (output_error == 0 ? "not everything arrived" : std::strerror(output_error));
}

}  // namespace carousel
