#include "engine/vectors/judgement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// The ranks of values from 0; equal values share the mean of theirs.
std::vector<double> ranks(std::span<const double> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](std::size_t i, std::size_t j) { return values[i] < values[j]; });
  std::vector<double> result(values.size());
  for (std::size_t first = 0; first < order.size();) {
    std::size_t end = first + 1;
    while (end < order.size() && values[order[end]] == values[order[first]]) ++end;
    const double mean = static_cast<double>(first + end - 1) / 2;
    for (; first < end; ++first) result[order[first]] = mean;
  }
  return result;
}

/// Pearson's correlation of ranks, whose mean is known.
double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const double mean = static_cast<double>(a.size() - 1) / 2;
  double both = 0, of_a = 0, of_b = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    both += (a[i] - mean) * (b[i] - mean);
    of_a += (a[i] - mean) * (a[i] - mean);
    of_b += (b[i] - mean) * (b[i] - mean);
  }
  return of_a == 0 || of_b == 0 ? kNaN : both / std::sqrt(of_a * of_b);
}

}  // namespace

double spearman(std::span<const double> a, std::span<const double> b) {
  expect_extent("spearman: values of the second side", std::ssize(b), std::ssize(a));
  return a.size() < 2 ? kNaN : correlation(ranks(a), ranks(b));
}

SimilarityJudgement judge(const WordSpace& space, std::span<const ScoredPair> pairs) {
  SimilarityJudgement result{.pairs = std::ssize(pairs)};
  std::vector<double> ours, theirs;
  for (const ScoredPair& pair : pairs) {
    const std::int32_t a = space.find(pair.a), b = space.find(pair.b);
    if (a < 0 || b < 0) {
      ++result.unknown;
      continue;
    }
    ours.push_back(space.cosine(a, b));
    theirs.push_back(pair.score);
  }
  result.spearman = spearman(ours, theirs);
  return result;
}

double AnalogyJudgement::accuracy() const {
  return questions == unknown
             ? kNaN
             : static_cast<double>(correct) / static_cast<double>(questions - unknown);
}

std::vector<AnalogyJudgement> judge(const WordSpace& space,
                                    std::span<const AnalogySection> sections,
                                    std::int64_t most_frequent) {
  std::vector<AnalogyJudgement> result;
  for (const AnalogySection& section : sections) {
    AnalogyJudgement judgement{.section = section.name, .questions = std::ssize(section.questions)};
    std::vector<WordQuery> queries;
    std::vector<std::int32_t> answers;
    for (const auto& question : section.questions) {
      std::array<std::int32_t, 4> ids{};
      std::transform(question.begin(), question.end(), ids.begin(),
                     [&](const std::string& word) { return space.find(word); });
      const bool known = std::all_of(ids.begin(), ids.end(), [&](std::int32_t id) {
        return id >= 0 && (most_frequent == 0 || id < most_frequent);
      });
      if (!known) {
        ++judgement.unknown;
        continue;
      }
      queries.push_back({.plus = {ids[1], ids[2]}, .minus = {ids[0]}});
      answers.push_back(ids[3]);
    }
    const auto found = space.nearest(queries, 1, most_frequent);
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (!found[i].empty() && found[i].front().word == answers[i]) ++judgement.correct;
    }
    result.push_back(std::move(judgement));
  }
  return result;
}

AnalogyJudgement total(std::span<const AnalogyJudgement> sections) {
  AnalogyJudgement sum{.section = "all"};
  for (const AnalogyJudgement& one : sections) {
    sum.questions += one.questions;
    sum.unknown += one.unknown;
    sum.correct += one.correct;
  }
  return sum;
}

}  // namespace carousel
