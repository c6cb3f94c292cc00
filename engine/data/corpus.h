#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokens.h"
#include "engine/text/vocabularies.h"

namespace carousel {

/// Ids of one kind: "token", what is read; "label", one for each example; "source", the texts that
/// condition those of "token", line by line.
struct Column {
  std::string name;
  TokenRange ids;
};

/// One part of a corpus: columns of the same examples. Without columns, it is not there.
struct Split {
  std::vector<Column> columns{};

  bool empty() const { return columns.empty(); }
  const TokenRange* find(std::string_view name) const;  ///< null if there is none
  /// ConfigError that lists the columns there are if there is none of this name.
  const TokenRange& operator[](std::string_view name) const;
};

/// What a kind of data gives: ids, and what they mean. A sampler makes batches of it.
struct Corpus {
  Vocabularies vocabularies{};  ///< the roles are the names of the columns
  Split train{}, validation{};
  std::vector<std::string> notices{};  ///< what to tell of the texts
  /// Each line of the column "token", from <bos> to <eos>, is on its own; else they are one stream.
  bool lines = false;
  std::int32_t answer_after = -1;  ///< of a line, only tokens after this one are targets; −1: all

  // Of a stream.
  std::int32_t document_end = -1;  ///< token after which a row's state restarts; −1: none
  std::size_t device_bytes = std::size_t{1} << 30;  ///< a stream up to this size moves in there
};

}  // namespace carousel
