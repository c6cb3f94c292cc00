#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "engine/batches/batches.h"
#include "tests/support/tensors.h"

namespace carousel::test {

/// A text and its translation, without special tokens.
using Pair = std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>>;

inline constexpr std::int32_t kBegin = 1, kEnd = 2;  // of pairs

/// Pairs as a model that translates reads them; behind these, `filling` rows without a token.
/// Padding of the source is `padding`.
inline Batch pair_batch(const Device& device, const std::vector<Pair>& pairs,
                        std::int64_t filling = 0, std::int32_t padding = 0) {
  using Ids = std::vector<std::int32_t>;
  std::size_t S = 1, T = 1;
  for (const auto& [source, target] : pairs) {
    S = std::max(S, source.size() + 1);
    T = std::max(T, target.size() + 1);
  }
  const std::size_t B = pairs.size() + static_cast<std::size_t>(filling);
  Ids source(S * B, padding), token(T * B, 0), target(T * B, -1), sources(B, 0), targets(B, 0);
  Batch batch{.rows = static_cast<std::int64_t>(B)};
  for (std::size_t b = 0; b < pairs.size(); ++b) {
    const auto& [from, to] = pairs[b];
    for (std::size_t s = 0; s <= from.size(); ++s) {
      source[s * B + b] = s < from.size() ? from[s] : kEnd;
    }
    for (std::size_t t = 0; t <= to.size(); ++t) {
      token[t * B + b] = t == 0 ? kBegin : to[t - 1];
      target[t * B + b] = t < to.size() ? to[t] : kEnd;
    }
    sources[b] = static_cast<std::int32_t>(from.size() + 1);
    targets[b] = static_cast<std::int32_t>(to.size() + 1);
    batch.counted += targets[b];
  }
  const auto grid = [&](const char* name, std::size_t steps, const Ids& ids, const Ids& lengths) {
    const Shape shape{static_cast<std::int64_t>(steps), batch.rows};
    batch.fields.push_back(
        {name, tensor_of(device, shape, ids), tensor_of(device, {batch.rows}, lengths)});
  };
  grid("source", S, source, sources);
  grid("token", T, token, targets);
  grid("target", T, target, targets);
  return batch;
}

}  // namespace carousel::test
