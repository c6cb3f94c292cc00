#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/common/device.h"
#include "tests/bench/lstm_results.h"
#include "tests/support/cudnn.h"

namespace carousel::bench {

struct Cell {
  std::int64_t T, B, H;  ///< input size = H
};

/// Something to be timed.
struct Contender {
  Record who;  ///< all but pass, launch and outcome
  /// Makes it and runs its forward pass, or throws. Says what memory it has, and how to queue a pass.
  std::function<void(Contender&)> open;
  std::function<void()> forward{}, backward{};
};

/// Ours, and cuDNN's by every algorithm, of every type among `types` that there is.
std::vector<Contender> contenders(const Cuda& cuda, const test::Cudnn& cudnn, const Cell& cell,
                                  const std::vector<test::CudnnType>& types);

}  // namespace carousel::bench
