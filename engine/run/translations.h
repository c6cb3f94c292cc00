#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/generation/beam.h"
#include "engine/run/trained_model.h"

namespace carousel {

/// What a model writes for lines.
class Translations {
 public:
  /// ConfigError for a model that translates nothing.
  explicit Translations(TrainedModel& trained);

  /// How lines are read: with an <eos> at their end.
  LineEncoder encoder(std::string name) const;
  /// The best hypotheses of each line of ids (LineEncoder), in the order of the lines; none of a line
  /// without tokens. <unk> and <bos> are suppressed, too. Lines of similar lengths are translated side
  /// by side. If tokens are drawn, the numbers of the lines, from first_line on, tell their random
  /// numbers apart.
  std::vector<std::vector<Hypothesis>> translate(std::span<const LineIds> lines,
                                                 BeamOptions options, std::uint64_t first_line = 0);
  /// The text of a hypothesis.
  std::string text(const Hypothesis& hypothesis) const;
  const Vocabulary& source() const { return trained_.vocabularies()["source"]; }
  const Vocabulary& target() const { return trained_.vocabularies()["token"]; }

 private:
  TrainedModel& trained_;
  Translator& translator_;
};

}  // namespace carousel
