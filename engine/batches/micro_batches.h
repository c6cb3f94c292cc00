#pragma once

#include <memory>
#include <vector>

#include "engine/batches/batches.h"

namespace carousel {

/// The batches of several sources in turn. They are the shares (Share) of one larger batch, whose
/// gradients a training step adds up, so they are at the same position whenever a turn begins. A
/// batch is valid until its own source's next one.
std::unique_ptr<BatchSource> in_turn(std::vector<std::unique_ptr<BatchSource>> sources);

}  // namespace carousel
