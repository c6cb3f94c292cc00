#include "engine/vectors/word_space.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "engine/text/utf8.h"
#include "kernels/top_k/top_k.h"

namespace carousel {
namespace {

static_assert(WordSpace::kMostNeighbours == TopK<float>::kMost);
constexpr std::int64_t kScores = std::int64_t{1}
                                 << 24;  // of all words with some queries, at a time

double product(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

/// Divides by the length; zeros stay zeros.
void normalize(std::span<float> vector) {
  const double length = std::sqrt(product(vector, vector));
  if (length == 0) return;
  for (float& number : vector) number = static_cast<float>(number / length);
}

}  // namespace

WordSpace::WordSpace(const VectorFile& file, const Device& device, Case letters)
    : device_(device), letters_(letters), width_(file.width()) {
  words_.reserve(static_cast<std::size_t>(file.words()));
  rows_.reserve(static_cast<std::size_t>(file.words() * file.width()));
  file.read([&](std::string_view word, std::span<const float> vector) {
    ids_.emplace(letters == Case::ignored ? lower_case(word) : std::string(word),
                 static_cast<std::int32_t>(words_.size()));  // the first of several stays
    words_.emplace_back(word);
    rows_.insert(rows_.end(), vector.begin(), vector.end());
  });
  units_ = rows_;
  const auto width = static_cast<std::size_t>(width_);
  for (std::size_t at = 0; at < units_.size(); at += width) {
    normalize(std::span(units_).subspan(at, width));
  }
  table_ = Tensor(device_, {words(), width_}, DType::f32);
  copy_from_host(table_, units_.data());
}

std::int32_t WordSpace::find(std::string_view word) const {
  const auto found = letters_ == Case::ignored ? ids_.find(lower_case(word)) : ids_.find(word);
  return found == ids_.end() ? -1 : found->second;
}

std::span<const float> WordSpace::vector(std::int32_t id) const {
  return std::span(rows_).subspan(static_cast<std::size_t>(id * width_),
                                  static_cast<std::size_t>(width_));
}

std::span<const float> WordSpace::unit(std::int32_t id) const {
  return std::span(units_).subspan(static_cast<std::size_t>(id * width_),
                                   static_cast<std::size_t>(width_));
}

double WordSpace::cosine(std::int32_t a, std::int32_t b) const { return product(unit(a), unit(b)); }

std::vector<float> WordSpace::direction(const WordQuery& query) const {
  std::vector<float> sum(static_cast<std::size_t>(width_));
  const auto add = [&](const std::vector<std::int32_t>& words, float sign) {
    for (const std::int32_t id : words) {
      for (std::size_t e = 0; e < sum.size(); ++e) sum[e] += sign * unit(id)[e];
    }
  };
  add(query.plus, 1);
  add(query.minus, -1);
  normalize(sum);
  return sum;
}

std::vector<std::vector<Neighbour>> WordSpace::nearest(std::span<const WordQuery> queries,
                                                       std::int64_t count,
                                                       std::int64_t among) const {
  const std::int64_t rows = among > 0 ? std::min(among, words()) : words();
  const auto at_once = static_cast<std::size_t>(std::clamp<std::int64_t>(kScores / rows, 1, 1024));
  std::vector<std::vector<Neighbour>> result;
  while (!queries.empty()) {
    const auto some = queries.first(std::min(queries.size(), at_once));
    auto found = nearest_at_once(some, count, rows);
    std::move(found.begin(), found.end(), std::back_inserter(result));
    queries = queries.subspan(some.size());
  }
  return result;
}

std::vector<std::vector<Neighbour>> WordSpace::nearest_at_once(std::span<const WordQuery> queries,
                                                               std::int64_t count,
                                                               std::int64_t rows) const {
  std::size_t most = 1;
  for (const WordQuery& q : queries) most = std::max(most, q.plus.size() + q.minus.size());
  std::vector<float> directions;
  std::vector<std::int32_t> named;
  for (const WordQuery& query : queries) {
    const std::vector<float> own = direction(query);
    directions.insert(directions.end(), own.begin(), own.end());
    named.insert(named.end(), query.plus.begin(), query.plus.end());
    named.insert(named.end(), query.minus.begin(), query.minus.end());
    named.resize(named.size() + most - query.plus.size() - query.minus.size(), -1);
  }
  const std::int64_t n = std::ssize(queries);
  const Tensor query(device_, {n, width_}, DType::f32), all(device_, {n, rows}, DType::f32),
      score(device_, {n, count}, DType::f32), index(device_, {n, count}, DType::i32),
      excluded(device_, {n, static_cast<std::int64_t>(most)}, DType::i32);
  copy_from_host(query, directions.data());
  copy_from_host(excluded, named.data());
  run(device_, TopK<float>{.query = query.view<float, 2>(),
                           .table = table_.slice(0, rows).view<float, 2>(),
                           .excluded = excluded.view<std::int32_t, 2>(),
                           .all = all.mutable_view<float, 2>(),
                           .index = index.mutable_view<std::int32_t, 2>(),
                           .score = score.mutable_view<float, 2>()});
  std::vector<std::int32_t> found(static_cast<std::size_t>(n * count));
  copy_to_host(index, found.data());
  const std::vector<float> cosines = host_floats(score);
  std::vector<std::vector<Neighbour>> result(queries.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    if (found[i] >= 0)
      result[i / static_cast<std::size_t>(count)].push_back({found[i], cosines[i]});
  }
  return result;
}

}  // namespace carousel
