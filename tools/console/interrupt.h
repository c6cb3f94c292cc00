#pragma once

#include <atomic>

namespace carousel {

/// What a system call that waits does when an interrupt comes.
enum class Waiting { goes_on, ends };

/// From now on the first Ctrl-C or polite kill (SIGTERM) sets interrupted(), and the second ends the
/// process.
void watch_interrupts(Waiting waiting);
const std::atomic<bool>& interrupted();

}  // namespace carousel
