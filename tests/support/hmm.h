#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#include "models/hmm/tables.h"
#include "tests/reference/hmm.h"

namespace carousel::test {

inline std::vector<double> random_distribution(std::mt19937& random, std::size_t n, double power,
                                               bool zeros = false) {
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<double> row(n);
  for (double& value : row) {
    value = zeros && uniform(random) < 0.3 ? 0 : std::pow(uniform(random), power);
  }
  row[random() % n] += 0.01;  // not all are 0
  const double sum = std::accumulate(row.begin(), row.end(), 0.0);
  for (double& value : row) value /= sum;
  return row;
}

/// A model whose tables are the more uneven the higher the power is.
inline reference::Hmm random_hmm(std::mt19937& random, std::size_t states, std::size_t tokens,
                                 double power = 1, bool zeros = false) {
  reference::Hmm hmm{
      .start = random_distribution(random, states, power, zeros), .transition = {}, .emission = {}};
  for (std::size_t i = 0; i < states; ++i) {
    hmm.transition.push_back(random_distribution(random, states, power, zeros));
    hmm.emission.push_back(random_distribution(random, tokens, power, zeros));
  }
  return hmm;
}

inline HmmTables tables_of(const reference::Hmm& hmm) {
  HmmTables tables(std::ssize(hmm.start), std::ssize(hmm.emission.front()));
  std::copy(hmm.start.begin(), hmm.start.end(), tables.start.begin());
  for (std::size_t i = 0; i < hmm.states(); ++i) {
    const auto state = static_cast<std::int64_t>(i);
    std::copy(hmm.transition[i].begin(), hmm.transition[i].end(),
              tables.transition_from(state).begin());
    for (std::size_t x = 0; x < hmm.emission[i].size(); ++x) {
      tables.emission_of(static_cast<std::int64_t>(x))[i] = hmm.emission[i][x];
    }
  }
  return tables;
}

inline std::size_t draw(std::mt19937& random, const std::vector<double>& probabilities) {
  return static_cast<std::size_t>(
      std::discrete_distribution<int>(probabilities.begin(), probabilities.end())(random));
}

inline std::vector<std::int32_t> sampled(std::mt19937& random, const reference::Hmm& hmm,
                                         std::size_t length) {
  std::vector<std::int32_t> tokens;
  std::size_t state = draw(random, hmm.start);
  for (std::size_t t = 0; t < length; ++t) {
    if (t > 0) state = draw(random, hmm.transition[state]);
    tokens.push_back(static_cast<std::int32_t>(draw(random, hmm.emission[state])));
  }
  return tokens;
}

}  // namespace carousel::test
