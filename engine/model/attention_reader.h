#pragma once

#include <string>
#include <vector>

#include "engine/model/model.h"

namespace carousel {

/// The weights of one attention of a model.
struct AttentionWeights {
  std::string name;  ///< "layer 0", "decoder layer 0, source"
  /// The fields whose tokens ask, along the rows of the weights, and answer, along their columns.
  std::string queries, keys;
  Tensor weights;  ///< [B, A, Tq, Tk] f32, before dropout
};

/// Tells what each of its attentions looks at, which takes the memory that attention() saves.
class AttentionReader {
 public:
  virtual ~AttentionReader() = default;
  /// Of all layers, in the order of computation, for a batch as the objective reads it.
  virtual std::vector<AttentionWeights> attention_weights(Pass& pass, const Batch& batch) = 0;
};

}  // namespace carousel
