#pragma once

#include <span>

#include "engine/model/registry.h"

namespace carousel {

/// Every model there is, sorted by kind.
std::span<const ModelEntry> model_registry();

}  // namespace carousel
