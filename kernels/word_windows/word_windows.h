#pragma once

#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/random.h"
#include "kernels/common/view.h"
#include "kernels/embedding/embedding.h"

namespace carousel {

/// The words around each word of a text, for models of word vectors. Of the words of a row, a column of
/// token, those that are kept move together; the window of a kept word reaches `width` of them to
/// either side, or a drawn number of them, 1 … width:
///
///     kept[t,b]   = uniform(t,b) < keep[token[t,b]]
///     radius[t,b] = width − ⌊width · u⌋,    u uniform in [0, 1)
///     context[t,b,width − j] and context[t,b,width + j − 1] = the j-th kept words before and after t,
///                                                             for 1 ≤ j ≤ radius[t,b]
///     center[t,b] = token[t,b]
///
/// A window ends where a row restarts and where it ends. Words t, b with inside[t,b] < 0 are not there.
/// Without the step of a source nothing is drawn: a word is kept if keep is positive, and windows
/// have their full width.
///
/// Values   context is kNoToken where there is no word; all of it, where a word is not kept. center is
///          kIgnoreTarget where a word is not kept or has no context. A token outside [0, V) is not
///          kept. near[t,b,k] is center[t,b] where context[t,b,k] is a word, kIgnoreTarget elsewhere.
///          reached[t,b] is scratch: the token where it is kept, kNoToken elsewhere.
/// Errors   ShapeError if the extents disagree, and for a width below 1 or above 4096. T·B == 0 does
///          nothing.
/// Accuracy exact. What is drawn for t, b is a function of the source, its step and t·B + b.
/// Memory   reads token, and keep at the tokens; writes context, center and near once. A window's
///          neighbours are searched, until enough are found, among the kept words in scratch.
/// Source   Mikolov, Sutskever, Chen, Corrado & Dean 2013, arXiv:1310.4546, section 2.3, for keep; Mikolov,
///          Chen, Corrado & Dean 2013, arXiv:1301.3781, section 3.2, for the drawn radius.
struct WordWindows {
  View<const std::int32_t, 2> token;     ///< [T, B]
  View<const std::int32_t, 2> inside{};  ///< [T, B] absent: all are there
  View<const std::int32_t, 2> reset{};   ///< [T, B] absent: no row restarts
  View<const float, 1> keep;             ///< [V] probabilities
  std::int64_t width = 5;
  RandomSource source{};
  View<std::int32_t, 2> reached;  ///< [T, B] scratch
  View<std::int32_t, 3> context;  ///< [T, B, 2·width] out
  View<std::int32_t, 2> center;   ///< [T, B] out
  View<std::int32_t, 3> near{};   ///< [T, B, 2·width] out; may be absent
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

}  // namespace carousel
