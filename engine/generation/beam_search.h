#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/generation/beam.h"
#include "engine/model/translator.h"

namespace carousel {

/// Searches for the texts that a translator most probably writes, for several sources side by side.
/// What a source gets does not depend on those beside it, but for the rounding of sums. The rows of a
/// source that is over are computed on, and not looked at, until all are.
///
/// Tokens are drawn instead if the options say so, of a source by random numbers of its own: what it gets
/// does not depend on the others either.
///
/// The K likeliest tokens of each row are found on the device (kernels/top_k): a step brings
/// K·B·(K + 1) numbers to the host, not its logits.
class BeamSearch {
 public:
  /// Of the texts that are written.
  struct Tokens {
    std::int32_t begin = -1, end = -1;  ///< <bos> and <eos>
  };
  /// ConfigError for options out of range, and for a coverage penalty or alignments of a translator
  /// without attention.
  BeamSearch(Translator& translator, const Device& device, const Tokens& tokens,
             BeamOptions options);
  BeamSearch(const BeamSearch&) = delete;  // beams refer to the options
  BeamSearch& operator=(const BeamSearch&) = delete;

  /// The best N hypotheses of each source, best first; fewer where there are no more. A source has at
  /// least one token: ShapeError. Error if the model's logits are not numbers. `streams` tell the
  /// random numbers of the sources apart; by default 0, 1, …
  std::vector<std::vector<Hypothesis>> search(std::span<const std::vector<std::int32_t>> sources,
                                              std::span<const std::uint64_t> streams = {});

 private:
  /// The likeliest K + 1 tokens of each row, on the host: of K that do not end a text, none is missed.
  struct Likeliest {
    std::vector<std::int32_t> token;     ///< [K·B, K + 1]; −1 where there are no more
    std::vector<float> logit, log_sums;  ///< [K·B, K + 1], and of each row [K·B]
  };
  State encode(std::span<const std::vector<std::int32_t>> sources, std::int64_t steps);
  Likeliest likeliest(const Tensor& logits);
  /// Of each row the token that was drawn, at this step from 1 on.
  Likeliest drawn(const Tensor& logits, std::int64_t step);
  Tensor without_suppressed(const Tensor& logits);
  std::vector<Beam::Extension> candidates(const Beam& beam, std::size_t source,
                                          const Likeliest& likeliest) const;
  void begin(std::int64_t rows);
  void clear();  ///< what the last step has left on the tape
  /// Whether steps have to tell their alignment.
  bool weighs() const { return options_.aligned || options_.coverage_penalty != 0; }
  void extend(std::vector<Beam>& beams, std::span<const std::vector<std::int32_t>> sources,
              const Likeliest& likeliest, const Tensor& alignment) const;
  /// Writes which row each goes on from and the token it reads; whether any is another's.
  bool place(const std::vector<Beam>& beams);

  Translator& translator_;
  const BeamOptions options_;
  Tokens tokens_;
  Device device_;
  Arena arena_;
  Tape tape_;
  Tensor excluded_;  ///< [K·B, suppressed]
  Tensor mask_;      ///< if tokens are drawn, [B, V] f32: −∞ of suppressed ones
  std::vector<std::uint64_t> streams_;     ///< if tokens are drawn
  std::vector<std::int32_t> token_, row_;  ///< [K·B]
  std::int64_t sources_ = 0;               ///< B
};

}  // namespace carousel
