#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/model/estimator.h"
#include "models/hmm/forward_backward.h"

namespace carousel {

/// A sequence of a text: tokens first … first + count − 1.
struct TextSequence {
  std::int64_t first = 0, count = 0;
};

/// The sequences of a corpus's training part: its lines without <bos>; or of a stream its documents,
/// which end in `boundary`, if there is such a token, cut into blocks of `block` tokens. In lines
/// `boundary` is <bos>.
std::vector<TextSequence> training_sequences(const Corpus& corpus, std::int32_t boundary,
                                             std::int64_t block);

/// How often each token of the vocabulary is in a text.
std::vector<std::int64_t> token_counts(const TokenRange& tokens, std::int64_t vocabulary);

/// What Baum-Welch expects of the sequences under the tables. Threads take groups of neighbouring
/// sequences; which these are, and the order in which their counts are added, does not depend on the
/// number of threads, so neither do the sums. Nothing if fit.stop was set.
///
/// Memory   HmmCounts of each group: together at most 256 MB, or one.
std::optional<HmmCounts> expected_counts(const HmmTables& tables, const Fit& fit,
                                         std::span<const TextSequence> sequences);

/// The tables that make the counts likeliest, if `smoothing` is added to the expected number of each
/// start, transition and token: with 0 the step of Baum-Welch. `never` is a token that is never emitted;
/// −1: none. A row without counts stays as it is.
///
/// Source   Baum, Petrie, Soules & Weiss 1970, Annals of Mathematical Statistics 41(1):164–171.
HmmTables reestimated(const HmmTables& tables, const HmmCounts& counts, double smoothing,
                      std::int32_t never);

}  // namespace carousel
