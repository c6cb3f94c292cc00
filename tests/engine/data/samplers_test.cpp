#include "engine/data/samplers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "engine/data/labelled_data.h"
#include "engine/data/text_data.h"
#include "kernels/common/check.h"
#include "tests/support/batches.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::error_text;
using test::next_batches;
using test::SeenBatch;
using Ids = std::vector<std::int32_t>;

Corpus stream_corpus(std::int64_t tokens, const std::string& document_end = "") {
  std::string text;
  for (std::int64_t i = 0; i < tokens; ++i) text += static_cast<char>('a' + i * i % 23);
  TextData data;
  data.train_fraction = 1;
  data.document_end = document_end;
  Corpus corpus = data.corpus({Text::in_memory(text)});
  corpus.validation = corpus.train;
  return corpus;
}

// Examples of 1 … 40 letters; the label tells the first of them.
Corpus example_corpus(int examples) {
  std::string text;
  for (int i = 0; i < examples; ++i) {
    const char letter = static_cast<char>('a' + i % 3);
    text += std::string("is ") + letter + '\t' + letter + std::string(i * 7 % 40, 'x') + '\n';
  }
  LabelledData data;
  data.train_fraction = 1;
  Corpus corpus = data.corpus(Text::in_memory(text));
  corpus.validation = corpus.train;
  return corpus;
}

TEST(Samplers, ExampleBatchesWorkedByHand) {
  LabelledData data;
  data.train_fraction = 1;
  const Corpus corpus = data.corpus(Text::in_memory("B\tyy\nA\tx\nA\tyyyyyyyyy\n"));
  for (const Device& device : test::devices()) {
    const SamplerOptions options{.device = device, .batch = 2, .training = false};
    const auto source = example_batches(corpus, corpus.train, options);
    EXPECT_EQ(source->batches_per_epoch(), 2);
    EXPECT_EQ(source->counted_per_epoch(), 3);
    const auto b = next_batches(*source, 3);
    EXPECT_EQ(b[0].row(b[0].token, 0), (Ids{1, 3, 3, 2, 0, 0, 0, 0}));  // <bos> y y <eos>
    EXPECT_EQ(b[0].row(b[0].token, 1), (Ids{1, 4, 2, 0, 0, 0, 0, 0}));
    EXPECT_EQ(b[0].lengths, (Ids{4, 3}));
    EXPECT_EQ(b[0].label, (Ids{1, 0}));
    EXPECT_EQ(b[0].number, (Ids{0, 1}));
    EXPECT_EQ(b[0].tokens, 2);
    EXPECT_EQ(b[1].steps, 11);
    EXPECT_EQ(b[1].lengths, (Ids{11, 0}));  // filled up with a row of nothing
    EXPECT_EQ(b[1].row(b[1].token, 1), Ids(11, 0));
    EXPECT_EQ(b[1].label, (Ids{0, -1}));
    EXPECT_EQ(b[1].number, (Ids{2, -1}));
    EXPECT_EQ(b[1].tokens, 1);
    EXPECT_TRUE(b[0].target.empty() && b[0].reset.empty());
    EXPECT_TRUE(b[0].first && b[1].first && b[2] == b[0]);
  }
}

TEST(Samplers, OfLinesWithAnswersTheseAloneAreTargets) {
  TextData data;
  data.unit = TextData::Unit::line;
  data.train_fraction = 1;
  data.answer_after = "=";
  const Corpus corpus = data.corpus({Text::in_memory("a=b\n=aa\n")});
  const auto source = language_batches(corpus, corpus.train, {.batch = 2, .training = false});
  EXPECT_EQ(source->counted_per_epoch(), 2 + 3);
  EXPECT_EQ(next_batches(*source, 1).front().tokens, 2 + 3);
}

TEST(Samplers, EveryEpochHasEveryExampleOnceWithItsOwnLabel) {
  const Corpus corpus = example_corpus(100);
  const Vocabulary &tokens = corpus.vocabularies["token"], &labels = corpus.vocabularies["label"];
  const auto source = example_batches(corpus, corpus.train, {.batch = 8, .seed = 3});
  std::set<std::vector<std::string>> orders;
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::string> texts;
    std::int64_t counted = 0;
    for (const SeenBatch& b : next_batches(*source, source->batches_per_epoch())) {
      counted += b.tokens;
      EXPECT_TRUE(b.number.empty());
      for (std::int64_t row = 0; row < b.rows; ++row) {
        const auto at = static_cast<std::size_t>(row);
        Ids ids = b.row(b.token, row);
        ids.resize(static_cast<std::size_t>(b.lengths[at]));
        EXPECT_EQ(b.lengths[at] == 0, b.label[at] == -1);
        if (ids.empty()) continue;
        texts.push_back(tokens.decode(ids));
        EXPECT_EQ(labels.token(b.label[at]), "is " + texts.back().substr(0, 1));
      }
    }
    EXPECT_EQ(counted, 100);
    orders.insert(texts);
    std::sort(texts.begin(), texts.end());
    EXPECT_EQ(std::unique(texts.begin(), texts.end()) - texts.begin(), 100);
  }
  EXPECT_EQ(orders.size(), 3U);
}

TEST(Samplers, EvaluationOfAStreamIsOneRowFromFirstTokenToLast) {
  const Corpus corpus = stream_corpus(203, "b");
  Ids all(203);
  corpus.validation["token"].read(0, 203, all.data());
  for (const std::int64_t batch : {1, 4, 7}) {
    const auto source = language_batches(corpus, corpus.validation,
                                         {.batch = batch, .window = 9, .training = false});
    Ids tokens, targets, resets;
    std::int64_t firsts = 0, counted = 0;
    for (const SeenBatch& b : next_batches(*source, source->batches_per_epoch())) {
      EXPECT_EQ(b.rows, 1);
      EXPECT_LE(b.steps, 9 * batch);  // as many tokens a batch as in training
      firsts += b.first ? 1 : 0;
      counted += b.tokens;
      tokens.insert(tokens.end(), b.token.begin(), b.token.end());
      targets.insert(targets.end(), b.target.begin(), b.target.end());
      resets.insert(resets.end(), b.reset.begin(), b.reset.end());
    }
    EXPECT_EQ(firsts, 1);
    EXPECT_EQ(counted, 202);
    EXPECT_EQ(source->batches_per_epoch(), (202 + 9 * batch - 1) / (9 * batch));
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), all.begin()));
    EXPECT_EQ(targets, Ids(all.begin() + 1, all.end()));
    const std::int32_t end = corpus.vocabularies["token"].id("b");
    for (std::size_t t = 0; t < 202; ++t) {
      EXPECT_EQ(resets[t], t == 0 || all[t - 1] == end ? 1 : 0);
    }
    // More rows: those of evaluation_batches().
    SamplerOptions cut{.batch = 4, .window = 9, .training = false, .rows = 4};
    const auto rows = language_batches(corpus, corpus.validation, cut);
    const auto same = evaluation_batches(Cpu{}, corpus.validation["token"],
                                         {.batch = 4, .window = 9, .document_end = end});
    EXPECT_EQ(next_batches(*rows, 6), next_batches(*same, 6));
  }
}

TEST(Samplers, TextsInMemoryGiveTheBatchesOfFiles) {
  const test::TemporaryFolder folder;
  const std::string text = "to be\nor not\n\nto be a carousel\n";
  const std::string path = folder.write("text", text);
  const std::string examples = folder.write("examples", "a\tone\nb\ttwo\na\tthree hundred\n");
  for (const bool training : {true, false}) {
    const SamplerOptions options{.batch = 2, .window = 3, .training = training};
    for (const auto unit : {TextData::Unit::stream, TextData::Unit::line}) {
      TextData data;
      data.train_fraction = 0.4;
      data.unit = unit;
      const Corpus memory = data.corpus({Text::in_memory(text)});
      const Corpus kept = data.corpus({path}, {}, folder.path("cache"));
      const Split& a = training ? memory.train : memory.validation;
      const Split& b = training ? kept.train : kept.validation;
      EXPECT_EQ(next_batches(*language_batches(memory, a, options), 9),
                next_batches(*language_batches(kept, b, options), 9));
    }
    LabelledData data;
    data.train_fraction = 1;
    const Corpus memory = data.corpus(Text::in_memory(test::file_content(examples)));
    const Corpus kept = data.corpus(examples, {}, folder.path("cache"));
    EXPECT_EQ(next_batches(*example_batches(memory, memory.train, options), 5),
              next_batches(*example_batches(kept, kept.train, options), 5));
  }
}

// The batches of all ranks side by side.
SeenBatch joined(const std::vector<SeenBatch>& ranks) {
  SeenBatch all = ranks.front();
  all.tokens = all.rows = 0;
  for (Ids* grid : {&all.token, &all.target, &all.reset, &all.lengths, &all.label, &all.number}) {
    grid->clear();
  }
  for (const SeenBatch& rank : ranks) {
    EXPECT_EQ(rank.steps, all.steps);
    EXPECT_EQ(rank.first, all.first);
    all.rows += rank.rows;
    all.tokens += rank.tokens;
    for (Ids SeenBatch::*list : {&SeenBatch::lengths, &SeenBatch::label, &SeenBatch::number}) {
      (all.*list).insert((all.*list).end(), (rank.*list).begin(), (rank.*list).end());
    }
  }
  for (std::int64_t t = 0; t < all.steps; ++t) {
    for (const SeenBatch& rank : ranks) {
      for (Ids SeenBatch::*grid : {&SeenBatch::token, &SeenBatch::target, &SeenBatch::reset}) {
        if ((rank.*grid).empty()) continue;
        const auto from = (rank.*grid).begin() + t * rank.rows;
        (all.*grid).insert((all.*grid).end(), from, from + rank.rows);
      }
    }
  }
  return all;
}

TEST(Samplers, RanksTogetherReadTheBatchesOfOneProcess) {
  struct Case {
    const char* name;
    Sampler sampler;
    Corpus corpus;
    SamplerOptions options;  // of a rank
  };
  Corpus prefetched = stream_corpus(150, "b");
  prefetched.device_bytes = 0;
  const Case cases[] = {
      {"stream", language_batches, stream_corpus(150, "b"), {.batch = 2, .window = 5}},
      {"random start",
       language_batches,
       stream_corpus(151),
       {.batch = 2, .window = 5, .random_start = true}},
      {"prefetched", language_batches, prefetched, {.batch = 2, .window = 5}},
      {"evaluation",
       language_batches,
       stream_corpus(151),
       {.batch = 3, .window = 5, .training = false, .rows = 3}},
      {"lines", language_batches, example_corpus(50), {.batch = 3}},
      {"examples", example_batches, example_corpus(50), {.batch = 3, .seed = 5}},
      {"examples in order", example_batches, example_corpus(50), {.batch = 3, .training = false}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    for (const std::int64_t world : {1, 2, 4}) {
      SamplerOptions options = c.options;
      options.batch *= world;
      options.rows *= world;
      const auto one = c.sampler(c.corpus, c.corpus.train, options);
      const std::int64_t count = 2 * one->batches_per_epoch() + 1;
      const auto want = next_batches(*one, count);
      std::vector<std::vector<SeenBatch>> ranks(static_cast<std::size_t>(count));
      for (std::int64_t rank = 0; rank < world; ++rank) {
        options = c.options;
        options.share = {.rank = rank, .world = world};
        const auto source = c.sampler(c.corpus, c.corpus.train, options);
        EXPECT_EQ(source->batches_per_epoch(), one->batches_per_epoch());
        EXPECT_EQ(source->counted_per_epoch(), one->counted_per_epoch());
        const auto batches = next_batches(*source, count);
        for (std::size_t i = 0; i < batches.size(); ++i) ranks[i].push_back(batches[i]);
      }
      for (std::size_t i = 0; i < ranks.size(); ++i) {
        ASSERT_EQ(joined(ranks[i]), want[i]) << "batch " << i << " of " << world << " ranks";
      }
    }
  }
  for (const Share& share : {Share{-1, 2}, Share{2, 2}, Share{0, 0}, Share{0, INT64_MAX}}) {
    const Corpus corpus = example_corpus(4);
    EXPECT_THROW(example_batches(corpus, corpus.train, {.share = share}), ConfigError);
    EXPECT_THROW(language_batches(stream_corpus(99), corpus.train, {.share = share}), ConfigError);
  }
}

TEST(Samplers, DataThatASamplerCannotReadIsNamed) {
  const Corpus stream = stream_corpus(50), examples = example_corpus(9);
  EXPECT_EQ(error_text<ConfigError>([&] { example_batches(stream, stream.train, {}); }),
            "text: the data is one stream, expected examples: data.unit = \"line\" or data.kind = "
            "\"labelled\"");
  EXPECT_EQ(error_text<ConfigError>([&] { language_batches(stream, Split{}, {}); }),
            "the data has no column 'token'; it has ");
  Split unlabelled{.columns = {{"token", examples.train["token"]}}};
  EXPECT_EQ(error_text<ConfigError>([&] { example_batches(examples, unlabelled, {}); }),
            "the data has no column 'label'; it has token");
  const auto inputs = example_batches(examples, unlabelled, {.batch = 4, .training = false});
  const SeenBatch b = next_batches(*inputs, 1).front();
  EXPECT_TRUE(b.label.empty());
  EXPECT_EQ(inputs->counted_per_epoch(), 9);
  Split short_of_labels = examples.train;
  --short_of_labels.columns[1].ids.count;
  EXPECT_EQ(error_text<FormatError>([&] { example_batches(examples, short_of_labels, {}); }),
            "text: 9 lines and 8 labels, expected a label a line");
  EXPECT_THROW(language_batches(stream, stream.train, {.training = false, .rows = 0}), ConfigError);
  EXPECT_EQ(error_text<FormatError>([] {
              Corpus corpus;
              corpus.train.columns = {{"token", tokens_in_memory({1, 2, 3}, "numbers")}};
              language_batches(corpus, corpus.train, {.batch = 2, .window = 2});
            }),
            "numbers: 3 tokens are too few for 2 rows with a window of 2, which take one more than "
            "2 · 2");
}

}  // namespace
}  // namespace carousel
