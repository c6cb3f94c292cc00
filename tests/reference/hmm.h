#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace carousel::reference {

using Table = std::vector<std::vector<double>>;

/// A hidden Markov model as its formula has it.
struct Hmm {
  std::vector<double> start;  ///< [S]
  Table transition;           ///< [S][S] from, to
  Table emission;             ///< [S][V]
  std::size_t states() const { return start.size(); }
};

/// p(states, tokens).
inline double joint(const Hmm& hmm, const std::vector<int>& states,
                    const std::vector<int>& tokens) {
  double probability = 1;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const auto z = static_cast<std::size_t>(states[t]), x = static_cast<std::size_t>(tokens[t]);
    probability *=
        t == 0 ? hmm.start[z] : hmm.transition[static_cast<std::size_t>(states[t - 1])][z];
    probability *= hmm.emission[z][x];
  }
  return probability;
}

/// Calls f with all S^T sequences of states.
template <class F>
void each_path(const Hmm& hmm, std::size_t length, F&& f) {
  std::vector<int> states(length);
  for (;;) {
    f(states);
    std::size_t t = 0;
    while (t < length && ++states[t] == static_cast<int>(hmm.states())) states[t++] = 0;
    if (t == length) return;
  }
}

/// Everything about a sequence, by enumeration of all paths.
struct Enumeration {
  Enumeration(const Hmm& hmm, const std::vector<int>& tokens)
      : smoothed(tokens.size(), std::vector<double>(hmm.states())),
        transitions(hmm.states(), std::vector<double>(hmm.states())) {
    each_path(hmm, tokens.size(), [&](const std::vector<int>& states) {
      const double p = joint(hmm, states, tokens);
      probability += p;
      if (p > path_probability) {
        path_probability = p;
        path = states;
      }
      for (std::size_t t = 0; t < states.size(); ++t) {
        const auto z = static_cast<std::size_t>(states[t]);
        smoothed[t][z] += p;
        if (t > 0) transitions[static_cast<std::size_t>(states[t - 1])][z] += p;
      }
    });
    for (Table* const table : {&smoothed, &transitions}) {
      for (std::vector<double>& row : *table) {
        for (double& value : row) value /= probability;
      }
    }
  }
  double probability = 0, path_probability = 0;
  std::vector<int> path{};  ///< the likeliest
  Table smoothed;           ///< [T][S]
  Table transitions;        ///< [S][S] expected numbers
};

inline long double log_sum(const std::vector<long double>& logs) {
  const long double most = *std::max_element(logs.begin(), logs.end());
  if (!(most > -std::numeric_limits<long double>::infinity())) return most;
  long double sum = 0;
  for (const long double value : logs) sum += std::exp(value - most);
  return most + std::log(sum);
}

/// The passes over logarithms, in long double, for sums of thousands of nats.
struct LogPasses {
  LogPasses(const Hmm& hmm, const std::vector<int>& tokens)
      : forward(tokens.size(), std::vector<long double>(hmm.states())), backward(forward) {
    const std::size_t count = hmm.states();
    const auto emits = [&](std::size_t t, std::size_t z) {
      return std::log(0.0L + hmm.emission[z][static_cast<std::size_t>(tokens[t])]);
    };
    std::vector<long double> ways(count);
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      for (std::size_t z = 0; z < count; ++z) {
        for (std::size_t i = 0; i < count && t > 0; ++i) {
          ways[i] = forward[t - 1][i] + std::log(0.0L + hmm.transition[i][z]);
        }
        forward[t][z] = (t == 0 ? std::log(0.0L + hmm.start[z]) : log_sum(ways)) + emits(t, z);
      }
    }
    for (std::size_t t = tokens.size() - 1; t-- > 0;) {
      for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t z = 0; z < count; ++z) {
          ways[z] = std::log(0.0L + hmm.transition[i][z]) + emits(t + 1, z) + backward[t + 1][z];
        }
        backward[t][i] = log_sum(ways);
      }
    }
    log_probability = log_sum(forward.back());
  }
  long double smoothed(std::size_t t, std::size_t z) const {
    return std::exp(forward[t][z] + backward[t][z] - log_probability);
  }
  long double filtered(std::size_t t, std::size_t z) const {
    return std::exp(forward[t][z] - log_sum(forward[t]));
  }
  /// p(state t − 1 = i and state t = z | all tokens), for t > 0.
  long double transition(const Hmm& hmm, const std::vector<int>& tokens, std::size_t t,
                         std::size_t i, std::size_t z) const {
    const double step = hmm.transition[i][z] * hmm.emission[z][static_cast<std::size_t>(tokens[t])];
    return std::exp(forward[t - 1][i] + std::log(0.0L + step) + backward[t][z] - log_probability);
  }
  std::vector<std::vector<long double>> forward, backward;  ///< [T][S]
  long double log_probability = 0;
};

}  // namespace carousel::reference
