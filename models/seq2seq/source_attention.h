#pragma once

#include <cstdint>

#include "engine/model/model.h"
#include "models/seq2seq/config.h"

namespace carousel {

/// How a decoder looks at the steps m_1 … m_S of a source, each of which the encoder gives n units.
/// With a decoder of H units:
///
///     m'_s = W_m m_s, of H units          (m_s itself if n = H)
///     score(h, m') = h·m' (dot)   or   h·W_a m' (general)
///     c = Σ_s softmax_s(score(h, m'_s)) m'_s,    h̃ = tanh(W_c [c; h])
///
/// With several heads the units of h, or W_aᵀ h, and m' are parts of equal size with scores of their own.
/// Two kinds have scores of sums, and look at m_s itself:
///
///     score(q, m) = v·tanh(W_q q + W_k m),    c = Σ_s softmax_s(score(q, m_s)) m_s
///
/// concat: q = h_t, and h̃ as above. (Its W_a [h; m] is the sum of W_q h and W_k m.) additive: q is the
/// state h_{t−1} of the decoder's top layer after the step before, at first the one that it begins with;
/// the decoder reads [embedding_t; c_t], and h̃_t = tanh(W_c [c_t; h_t]), where Bahdanau et al. have a
/// maxout layer of h_{t−1}, c_t and the embedding.
///
/// Source   Luong, Pham & Manning 2015, arXiv:1508.04025, section 3.1; Bahdanau, Cho & Bengio 2015,
///          arXiv:1409.0473, sections 3.1 and A.1.2 (additive).
class SourceAttention {
 public:
  /// Declares its parameters: "attention.memory.weight" W_m, "attention.score.weight" W_aᵀ or
  /// v [1, H], "attention.query.weight" W_q, "attention.key.weight" W_k and "attention.output.weight"
  /// W_c. `units` is n.
  SourceAttention(const Seq2SeqConfig& config, std::int64_t units, Parameters& parameters);

  /// What is made of the sources once.
  struct Memory {
    Var values{};      ///< m' [S, B, H], or m [S, B, n] of sums; absent without attention
    Var keys{};        ///< W_k m [S, B, H], of sums
    Tensor lengths{};  ///< [B] i32: steps of each source
    std::vector<Tensor>* seen = nullptr;  ///< where the weights of each look go, on request
  };
  Memory memory(Tape& tape, Var steps, const Tensor& lengths) const;
  /// c [T, B, …] for queries [T, B, H], or [B, H] of one step and scores of sums.
  Var context(Tape& tape, Var query, const Memory& memory) const;
  /// h̃ [T, B, H] for c and h [T, B, H].
  Var combined(Tape& tape, Var context, Var h) const;
  /// h̃ of queries h; h itself without attention.
  Var attended(Tape& tape, Var h, const Memory& memory) const;

 private:
  static constexpr std::size_t kNone = SIZE_MAX;
  Var product(Tape& tape, const char* name, Var x, std::size_t weight) const;

  Seq2SeqConfig config_;
  Parameters* parameters_;
  std::size_t memory_ = kNone, query_ = kNone, key_ = kNone, score_ = kNone, output_ = kNone;
};

}  // namespace carousel
