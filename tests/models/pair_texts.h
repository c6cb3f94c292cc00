#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "engine/batches/batches.h"
#include "tests/support/tensors.h"

namespace carousel::test {

using Ids = std::vector<std::int32_t>;

/// A source and the target that belongs to it; without a target, a row that fills up a batch.
using IdPair = std::pair<Ids, Ids>;

inline constexpr std::int32_t kBegin = 1, kEnd = 2;

/// Rows side by side, time-major, as long as the longest and `extra` steps more.
inline Field columns_of(const Device& device, const char* name, const std::vector<Ids>& rows,
                        std::int32_t padding, std::size_t extra) {
  std::size_t steps = 0;
  for (const Ids& row : rows) steps = std::max(steps, row.size());
  steps += extra;
  Ids values, lengths;
  for (std::size_t t = 0; t < steps; ++t) {
    for (const Ids& row : rows) values.push_back(t < row.size() ? row[t] : padding);
  }
  for (const Ids& row : rows) lengths.push_back(static_cast<std::int32_t>(row.size()));
  const auto count = static_cast<std::int64_t>(rows.size());
  return {.name = name,
          .values = tensor_of(device, {static_cast<std::int64_t>(steps), count}, values),
          .lengths = tensor_of(device, {count}, lengths)};
}

/// A batch as a sampler of pairs makes it, with `extra` steps of padding in both texts.
inline Batch pair_batch(const Device& device, const std::vector<IdPair>& pairs,
                        std::size_t extra = 0) {
  std::vector<Ids> sources, tokens, targets;
  Batch batch{.rows = static_cast<std::int64_t>(pairs.size())};
  for (const auto& [source, target] : pairs) {
    Ids read, written, answer;
    if (!target.empty()) {
      read = source, written = {kBegin}, answer = target;
      read.push_back(kEnd);
      written.insert(written.end(), target.begin(), target.end());
      answer.push_back(kEnd);
    }
    batch.counted += static_cast<std::int64_t>(answer.size());
    sources.push_back(read), tokens.push_back(written), targets.push_back(answer);
  }
  batch.fields = {columns_of(device, "source", sources, 0, extra),
                  columns_of(device, "token", tokens, 0, extra),
                  columns_of(device, "target", targets, -1, extra)};
  return batch;
}

}  // namespace carousel::test
