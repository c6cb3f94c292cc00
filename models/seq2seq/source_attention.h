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
///
/// Source   Luong, Pham & Manning 2015, arXiv:1508.04025, section 3.1.
class SourceAttention {
 public:
  /// Declares its parameters: "attention.memory.weight" W_m, "attention.score.weight" W_aᵀ and
  /// "attention.output.weight" W_c. `units` is n.
  SourceAttention(const Seq2SeqConfig& config, std::int64_t units, Parameters& parameters);

  /// What is made of the sources once.
  struct Memory {
    Var values{};                         ///< m' [S, B, H]; absent without attention
    Tensor lengths{};                     ///< [B] i32: steps of each source
    std::vector<Tensor>* seen = nullptr;  ///< where the weights of each look go, on request
  };
  Memory memory(Tape& tape, Var steps, const Tensor& lengths) const;
  /// h̃ [T, B, H] for h [T, B, H]; h itself without attention.
  Var attended(Tape& tape, Var h, const Memory& memory) const;
  /// The weights of the steps in attended(): float [B, heads, T, S].
  Tensor weights(Tape& tape, Var h, const Memory& memory) const;

 private:
  static constexpr std::size_t kNone = SIZE_MAX;
  Var query(Tape& tape, Var h) const;
  AttentionOptions options(const Memory& memory) const;

  Seq2SeqConfig config_;
  Parameters* parameters_;
  std::size_t memory_ = kNone, score_ = kNone, output_ = kNone;
};

}  // namespace carousel
