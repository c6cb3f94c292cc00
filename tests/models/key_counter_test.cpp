#include "models/ngram/key_counter.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/support/files.h"

namespace carousel {
namespace {

/// Keys of few values and of many, counted in memory of `bytes`.
template <std::size_t Words>
void expect_counts(std::size_t bytes, std::size_t least_runs, std::size_t most_runs) {
  SCOPED_TRACE(testing::Message() << Words << " words in " << bytes << " bytes");
  const test::TemporaryFolder scratch;
  constexpr int kKeys = 20'000;
  KeyCounter<Words> counter(bytes, kKeys, scratch.path());
  std::map<Key<Words>, std::int64_t> expected;
  std::mt19937_64 random(5);
  for (int i = 0; i < kKeys; ++i) {
    Key<Words> key{};
    for (std::uint64_t& word : key) word = random() % 3;
    key.back() = i % 2 == 0 ? random() % 50 : random();  // the last word is compared too
    counter.add(key);
    ++expected[key];
  }
  EXPECT_GE(counter.runs(), least_runs);
  EXPECT_LE(counter.runs(), most_runs);
  auto next = expected.begin();
  counter.drain([&](const Key<Words>& key, std::int64_t count) {
    EXPECT_EQ(std::pair(key, count), std::pair(next->first, next->second));
    return ++next != expected.end();
  });
  EXPECT_EQ(next, expected.end());
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

template <std::size_t Words>
void expect_counts() {
  expect_counts<Words>(std::size_t{1} << 22, 0, 0);
  expect_counts<Words>(20'000 * sizeof(Key<Words>), 0, 0);  // all of them fit, and not one more
  expect_counts<Words>(19'999 * sizeof(Key<Words>), 1, 1);
  expect_counts<Words>(500 * sizeof(Key<Words>), 39, 39);  // buffers of runs are filled again
}

TEST(KeyCounters, CountAsAMapDoesInAnyMemory) {
  expect_counts<1>();
  expect_counts<2>();
  expect_counts<3>();
  expect_counts<4>();
}

}  // namespace
}  // namespace carousel
