#pragma once

#include <span>

#include "engine/files/safetensors.h"

namespace carousel {

/// Fills the parameters of a TransformerLm from a file of its own, of nanoGPT or of GPT-2.
///
/// GPT-2 stores the matrices of its products [in, out] and not [out, in]: c_attn, c_proj and c_fc. As
/// c_attn is never square, its shape in the file tells which way all of them lie. The prefix
/// "transformer." may be absent. Masks ("h.0.attn.bias" [1, 1, C, C], "h.0.attn.masked_bias") are
/// left out, and so is an "lm_head.weight" that is the embedding's where the two are tied.
///
/// Errors   FormatError, before any tensor is written, for names that are missing or unexpected, for a
///          tensor of another shape or type, for a file whose matrices do not all lie one way, and for
///          an output matrix of its own where the model's is tied.
void read_gpt2_weights(const SafetensorsFile& file, std::span<const NamedTensor> tensors);

}  // namespace carousel
