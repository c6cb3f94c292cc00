#pragma once

#include <cstdint>

#include "kernels/common/alias_table.h"
#include "kernels/common/device.h"
#include "kernels/common/random.h"
#include "kernels/common/view.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/embedding/embedding.h"

namespace carousel {

/// Whether the answers to choices are right: for each row its target, with the answer yes, and words
/// drawn from a distribution of noise, with the answer no:
///
///     choice[n,0]     = target[n]                            answer[n,0] = 1
///     choice[n,1 + k] = word drawn for group ⌊n / G⌋ and k    answer[n,1 + k] = 0,    k < K
///
/// where the rows of a group of G share their words; the last group may be shorter. A draw takes two words of the source: see AliasTable.
///
/// Values   a drawn word that is the row's target is no choice: kNoToken. So are all of a row whose target
///          is kIgnoreTarget; another target outside [0, V) is passed on.
/// Errors   ShapeError if the extents disagree, K < 1, G < 1, V == 0 or the source has no step. N == 0 does nothing.
/// Accuracy exact, and the same on every device. What is drawn is a function of the source, its step and
///          ⌊n / G⌋·K + k.
/// Memory   reads target, and a column of the table for each draw; writes choice and answer once.
/// Source   Mikolov, Sutskever, Chen, Corrado & Dean 2013, arXiv:1310.4546, section 2.2; shared words: Ji,
///          Satish, Li & Dubey 2016, arXiv:1604.04661, section 3.
struct NegativeSampling {
  View<const std::int32_t, 1> target;  ///< [N]
  AliasTable noise;
  std::int64_t group = 1;  ///< G
  RandomSource source{};
  View<std::int32_t, 2> choice;  ///< [N, 1 + K] out
  View<std::int32_t, 2> answer;  ///< [N, 1 + K] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;

  /// The word of draw number `draw`.
  constexpr std::int32_t drawn(std::int64_t draw) const {
    const auto words = source.words(static_cast<std::uint64_t>(draw) / 2, source.step.data[0]);
    const bool even = draw % 2 == 0;  // indices are known: the words stay in registers
    return even ? noise.draw(words[0], words[1]) : noise.draw(words[2], words[3]);
  }
  /// Everything of row n.
  constexpr void write_row(std::int64_t n) const {
    const std::int64_t words = choice.extent[1] - 1;
    const std::int32_t of = target.data[n];
    const bool ignored = of == kIgnoreTarget;
    choice(n, 0) = ignored ? kNoToken : of;
    answer(n, 0) = 1;
    for (std::int64_t k = 0; k < words; ++k) {
      const std::int32_t word = ignored ? kNoToken : drawn(n / group * words + k);
      choice(n, 1 + k) = word == of ? kNoToken : word;
      answer(n, 1 + k) = 0;
    }
  }
};

}  // namespace carousel
