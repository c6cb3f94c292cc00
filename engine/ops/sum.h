#pragma once

#include "engine/tape/tape.h"

namespace carousel {

/// y as a + b, which some op computes: the rule, and the label "sum".
Var recorded_sum(const Tensor& y, Var a, Var b);

}  // namespace carousel
