#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/batches/batches.h"
#include "engine/data/text_cache.h"
#include "engine/text/utf8.h"
#include "tests/support/files.h"

namespace carousel::test {

/// A batch as numbers on the host, to look at and to compare.
struct SeenBatch {
  std::int64_t steps = 0, rows = 0, tokens = 0;
  bool first = false;
  std::vector<std::int32_t> token, target, reset, lengths, label, number;
  bool operator==(const SeenBatch&) const = default;

  /// Column `row` of a grid: what one row of the batch reads in this window.
  std::vector<std::int32_t> row(const std::vector<std::int32_t>& grid, std::int64_t row) const {
    std::vector<std::int32_t> column;
    for (std::int64_t t = 0; t < steps; ++t) {
      column.push_back(grid[static_cast<std::size_t>(t * rows + row)]);
    }
    return column;
  }
};

inline std::vector<std::int32_t> numbers(const Tensor& tensor) {
  if (!tensor) return {};
  std::vector<std::int32_t> values(static_cast<std::size_t>(tensor.size()));
  copy_to_host(tensor, values.data());
  return values;
}

inline SeenBatch seen(const Batch& batch) {
  const Field& token = batch.at("token");
  const auto values = [&](const char* name) {
    const Field* const field = batch.find(name);
    return field == nullptr ? std::vector<std::int32_t>() : numbers(field->values);
  };
  return {.steps = token.values.shape()[0],
          .rows = token.values.shape()[1],
          .tokens = batch.counted,
          .first = batch.first,
          .token = numbers(token.values),
          .target = values("target"),
          .reset = numbers(batch.reset),
          .lengths = numbers(token.lengths),
          .label = values("label"),
          .number = values("number")};
}

inline std::vector<SeenBatch> next_batches(BatchSource& source, std::int64_t count) {
  std::vector<SeenBatch> batches;
  for (std::int64_t i = 0; i < count; ++i) batches.push_back(seen(source.next()));
  return batches;
}

/// The tokens of a text that is written to `folder`.
inline TokenRange tokens_of(const TemporaryFolder& folder, const std::string& text,
                            const TokenRules& rules) {
  const std::string path = folder.write("text", text);
  const std::string cache = folder.path("cache");
  return tokenised({path}, counted_vocabulary({path}, rules, {}, cache), cache);
}

/// The tokens 0, 1, … n − 1: what a batch holds tells where in the text it is from.
inline TokenRange counting_tokens(const TemporaryFolder& folder, std::int64_t n) {
  std::string text;  // n different characters in order, each once
  for (std::int64_t i = 0; i < n; ++i) text += utf8(static_cast<char32_t>(0x3400 + i));
  return tokens_of(folder, text, {TokenKind::character, Newline::text, false});
}

}  // namespace carousel::test
