#include "tools/console/interrupt.h"

#include <csignal>

namespace carousel {
namespace {

std::atomic<bool> stop_asked{false};
extern "C" void ask_to_stop(int) { stop_asked = true; }

}  // namespace

const std::atomic<bool>& interrupted() { return stop_asked; }

void watch_interrupts(Waiting waiting) {
  struct sigaction action {};
  action.sa_handler = ask_to_stop;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | (waiting == Waiting::goes_on ? SA_RESTART : 0);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace carousel
