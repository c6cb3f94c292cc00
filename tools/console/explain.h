#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "engine/run/machine.h"
#include "kernels/common/journal.h"

namespace carousel {

/// Some of the device's memory, and what it is for.
struct MemoryPart {
  const char* purpose;
  std::size_t bytes;
};

/// What --explain tells of a piece of work. Listens to this thread while it lives.
class Explanation {
 public:
  Explanation(const Device& device, const MachineConfig& machine)
      : device_(device), machine_(machine) {}

  /// Lines: the device, the precision and, if `trains`, how steps are queued, each with what faster
  /// choice was refused and why; the memory by purpose, of which `parts` are named; and as a tree
  /// all ops that ran since this was made, with their kernels and library algorithms.
  std::string text(bool trains, const std::vector<MemoryPart>& parts) const;

 private:
  Device device_;
  const MachineConfig& machine_;
  Journal journal_;
};

}  // namespace carousel
