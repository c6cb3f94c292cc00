#pragma once

#include <vector>

#include "engine/tape/tape.h"

namespace carousel {

/// The mean over the heads of attention's weights [B, A, T, S], a row for each query: [T·B, S].
Tensor mean_of_heads(Tape& tape, const Tensor& weights);

/// Of single steps, the weights of each with T = 1 and B = 1, those of all: [1, A, steps, S].
Tensor joined_weights(Tape& tape, const std::vector<Tensor>& steps);

}  // namespace carousel
