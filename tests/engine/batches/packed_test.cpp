#include <gtest/gtest.h>

#include <vector>

#include "engine/batches/batches.h"
#include "kernels/common/check.h"
#include "tests/support/batches.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::error_text;
using test::next_batches;
using test::SeenBatch;
using Ids = std::vector<std::int32_t>;
using Places = std::vector<std::int64_t>;

Places places(const Batch& batch) {
  Places values(static_cast<std::size_t>(batch["place"].size()));
  copy_to_host(batch["place"], values.data());
  return values;
}

// Lines of 2, 7, 0, 1 and 3 tokens: the longest first, each into the shortest row.
TEST(PackedBatches, WorkedByHand) {
  const TokenRange tokens = tokens_in_memory({10, 11, 20, 21, 22, 23, 24, 25, 26, 30, 40, 41, 42}),
                   lengths = tokens_in_memory({2, 7, 0, 1, 3});
  for (const Device& device : test::devices()) {
    const auto data =
        packed_batches(device, tokens, lengths, {.rows = 2, .steps = 4, .document_end = 22});
    EXPECT_EQ(data->batches_per_epoch(), 2);
    EXPECT_EQ(data->counted_per_epoch(), 1 + 6 + 2);
    const auto b = next_batches(*data, 3);
    EXPECT_EQ(b[0].row(b[0].token, 0), (Ids{20, 21, 22, 23}));
    EXPECT_EQ(b[0].row(b[0].target, 0), (Ids{21, 22, 23, 24}));
    EXPECT_EQ(b[0].row(b[0].reset, 0), (Ids{1, 0, 0, 1})) << "a line and a document begin";
    EXPECT_EQ(b[0].row(b[0].token, 1), (Ids{40, 41, 42, 10}));
    EXPECT_EQ(b[0].row(b[0].target, 1), (Ids{41, 42, -1, 11}));
    EXPECT_EQ(b[0].row(b[0].reset, 1), (Ids{1, 0, 0, 1}));
    EXPECT_EQ(b[0].tokens, 7);
    EXPECT_EQ(b[1].row(b[1].token, 0), (Ids{24, 25, 26, 0}));
    EXPECT_EQ(b[1].row(b[1].target, 0), (Ids{25, 26, -1, -1}));
    EXPECT_EQ(b[1].row(b[1].token, 1), (Ids{11, 30, 0, 0})) << "goes on, then a line of one token";
    EXPECT_EQ(b[1].row(b[1].reset, 1), (Ids{0, 1, 1, 1})) << "what fills up begins anew";
    EXPECT_EQ(b[1].tokens, 2);
    EXPECT_TRUE(b[0].first && !b[1].first);
    EXPECT_EQ(b[2], b[0]);
    data->seek({});
    EXPECT_EQ(places(data->next()), (Places{2, 10, 3, 11, 4, 12, 5, 0}));
    EXPECT_EQ(places(data->next()), (Places{6, 1, 7, 9, 8, -1, -1, -1}));
  }
}

TEST(PackedBatches, TargetsFollowTheFirstAnswerToken) {
  const TokenRange tokens = tokens_in_memory({1, 5, 7, 8, 7, 2, 1, 6, 2}),
                   lengths = tokens_in_memory({6, 3});
  const auto data =
      packed_batches(Cpu{}, tokens, lengths, {.rows = 1, .steps = 9, .answer_after = 7});
  EXPECT_EQ(data->counted_per_epoch(), 3);
  const SeenBatch b = next_batches(*data, 1)[0];
  EXPECT_EQ(b.target, (Ids{-1, -1, 8, 7, 2, -1, -1, -1, -1})) << "the second line has no answer";
  EXPECT_EQ(b.tokens, 3);
}

// Every token has one place, and each line lies in one piece after its reset.
TEST(PackedBatches, ManyLinesAreAllThere) {
  Ids ids, lengths;
  for (std::int32_t i = 0; i < 200; ++i) {
    lengths.push_back(i * i % 23);
    for (std::int32_t n = 0; n < lengths.back(); ++n) ids.push_back(100 * i + n);
  }
  const auto data = packed_batches(Cpu{}, tokens_in_memory(ids), tokens_in_memory(lengths),
                                   {.rows = 5, .steps = 7});
  Ids seen(ids.size(), -1), before(5, -1);
  std::int64_t counted = 0;
  for (std::int64_t i = 0; i < data->batches_per_epoch(); ++i) {
    const Batch batch = data->next();
    const Places place = places(batch);
    const SeenBatch b = test::seen(batch);
    counted += b.tokens;
    for (std::size_t at = 0; at < place.size(); ++at) {
      if (place[at] < 0) continue;
      seen[static_cast<std::size_t>(place[at])] = b.token[at];
      EXPECT_EQ(b.reset[at], b.token[at] % 100 == 0 ? 1 : 0);
      EXPECT_TRUE(b.reset[at] == 1 || b.token[at] == before[at % 5] + 1);
      EXPECT_TRUE(b.target[at] == -1 || b.target[at] == b.token[at] + 1);
      before[at % 5] = b.token[at];
    }
  }
  EXPECT_EQ(seen, ids);
  EXPECT_EQ(counted, data->counted_per_epoch());
}

// Lines of 4, 3, 3, 2 and 1 tokens, in two rows of windows of 5.
TEST(PackedBatches, WholeLinesDoNotGoOverTheEndOfAWindow) {
  const TokenRange tokens = tokens_in_memory({10, 11, 20, 21, 22, 30, 40, 41, 42, 50, 51, 52, 53}),
                   lengths = tokens_in_memory({2, 3, 1, 3, 4});
  const auto data = packed_batches(Cpu{}, tokens, lengths, {.rows = 2, .steps = 5, .whole = true});
  const auto b = next_batches(*data, 2);
  EXPECT_EQ(data->batches_per_epoch(), 2);
  EXPECT_EQ(b[0].row(b[0].token, 0), (Ids{50, 51, 52, 53, 0}));
  EXPECT_EQ(b[0].row(b[0].reset, 0), (Ids{1, 0, 0, 0, 1}));
  EXPECT_EQ(b[0].row(b[0].token, 1), (Ids{20, 21, 22, 0, 0}));
  EXPECT_EQ(b[0].row(b[0].reset, 1), (Ids{1, 0, 0, 1, 1}));
  EXPECT_EQ(b[1].row(b[1].token, 0), (Ids{10, 11, 30, 0, 0}));
  EXPECT_EQ(b[1].row(b[1].target, 0), (Ids{11, -1, -1, -1, -1}));
  EXPECT_EQ(b[1].row(b[1].reset, 0), (Ids{1, 0, 1, 1, 1}));
  EXPECT_EQ(b[1].row(b[1].token, 1), (Ids{40, 41, 42, 0, 0}));
  EXPECT_EQ(b[1].row(b[1].reset, 1), (Ids{1, 0, 0, 1, 1}));
}

TEST(PackedBatches, WhatDoesNotFitIsRefused) {
  const TokenRange tokens = tokens_in_memory({1, 2, 3}), lengths = tokens_in_memory({2});
  EXPECT_EQ(error_text<FormatError>([&] { packed_batches(Cpu{}, tokens, lengths, {}); }),
            "tokens: 3 tokens in lines of 2 together");
  EXPECT_THROW(packed_batches(Cpu{}, tokens, tokens, {.rows = 0}), ConfigError);
  EXPECT_EQ(error_text<ConfigError>([&] {
              packed_batches(Cpu{}, tokens, tokens_in_memory({3}), {.steps = 2, .whole = true});
            }),
            "data: a line of 3 tokens, expected at most the 2 of a window");
}

}  // namespace
}  // namespace carousel
