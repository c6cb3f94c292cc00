#include "models/hmm/forward_backward.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace carousel {

void predict_state(const HmmTables& tables, std::span<const double> filtered,
                   std::span<double> predicted) {
  const bool begins =
      std::all_of(filtered.begin(), filtered.end(), [](double share) { return share == 0; });
  if (begins) {
    std::copy(tables.start.begin(), tables.start.end(), predicted.begin());
  } else {
    row_times_matrix(filtered, tables.transition, predicted);
  }
}

double observe(const HmmTables& tables, std::int32_t token, std::span<double> state) {
  const std::span<const double> emission = tables.emission_of(token);
  // Several sums at once: lanes of a vector, in the order of lane_sum().
  std::array<double, HmmTables::kLanes> sums{}, priors{};
  for (std::size_t i = 0; i < state.size(); i += sums.size()) {
#pragma omp simd
    for (std::size_t lane = 0; lane < sums.size(); ++lane) {
      sums[lane] += state[i + lane] * emission[i + lane];
      priors[lane] += state[i + lane];
    }
  }
  const double sum = lane_sum(sums), prior = lane_sum(priors);
  const bool is_possible = sum >= std::numeric_limits<double>::min();  // or 1 / sum were infinite
  const double factor = 1 / (is_possible ? sum : prior);
  for (std::size_t i = 0; i < state.size(); ++i) {
    state[i] *= is_possible ? emission[i] * factor : factor;
  }
  return is_possible ? sum : 0;
}

void LogProduct::multiply(double factor) {
  if (factor < 1e-100) {
    sum_ += std::log(factor);
    return;
  }
  rest_ *= factor;
  if (rest_ > 1e-200) return;
  sum_ += std::log(rest_);
  rest_ = 1;
}

double LogProduct::value() const { return sum_ + std::log(rest_); }

HmmCounts::HmmCounts(const HmmTables& tables)
    : start(tables.start.size()),
      transition(tables.transition.size()),
      emission(tables.emission.size()) {}

void HmmCounts::add(const HmmCounts& other) {
  const auto add_all = [](std::vector<double>& to, const std::vector<double>& from) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += from[i];
  };
  add_all(start, other.start);
  add_all(transition, other.transition);
  add_all(emission, other.emission);
  log_probability += other.log_probability;
  sequences += other.sequences;
  tokens += other.tokens;
}

ForwardBackward::ForwardBackward(const HmmTables& tables)
    : tables_(tables),
      width_(static_cast<std::size_t>(tables.width)),
      into_(transposed(tables.transition, tables.width)),
      later_(width_) {}

double ForwardBackward::forward(std::span<const std::int32_t> tokens) {
  tokens_ = tokens;
  if (scale_.size() < tokens.size()) {
    scale_.resize(tokens.size());
    for (std::vector<double>* const rows : {&filtered_, &smoothed_, &evidence_}) {
      rows->resize(tokens.size() * width_);
    }
  }
  LogProduct probability;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const std::span<double> state = row_of(filtered_, t, width_);
    if (t == 0) {
      std::copy(tables_.start.begin(), tables_.start.end(), state.begin());
    } else {
      row_times_matrix(row_of(filtered_, t - 1, width_), tables_.transition, state);
    }
    scale_[t] = observe(tables_, tokens[t], state);
    probability.multiply(scale_[t]);
  }
  log_probability_ = probability.value();
  return log_probability_;
}

void ForwardBackward::backward() {
  const auto states = static_cast<std::ptrdiff_t>(tables_.states);
  std::fill(later_.begin(), later_.begin() + states, 1.0);
  for (std::size_t t = tokens_.size(); t-- > 0;) {
    const std::span<const double> filtered = row_of(filtered_, t, width_),
                                  emission = tables_.emission_of(tokens_[t]);
    const std::span<double> smoothed = row_of(smoothed_, t, width_),
                            evidence = row_of(evidence_, t, width_);
    const bool is_possible = scale_[t] > 0;
    const double factor = is_possible ? 1 / scale_[t] : 1;
    for (std::size_t i = 0; i < width_; ++i) {
      smoothed[i] = filtered[i] * later_[i];
      evidence[i] = later_[i] * (is_possible ? emission[i] * factor : factor);
    }
    if (t > 0) row_times_matrix(evidence, into_, later_);
  }
}

void ForwardBackward::count(HmmCounts& counts) const {
  if (tokens_.empty()) return;
  const auto add = [&](std::span<double> to, std::size_t t) {
    const std::span<const double> from = smoothed(t);
    for (std::size_t i = 0; i < width_; ++i) to[i] += from[i];
  };
  add(counts.start, 0);
  for (std::size_t t = 0; t < tokens_.size(); ++t) {
    add(std::span(counts.emission).subspan(static_cast<std::size_t>(tokens_[t]) * width_, width_),
        t);
  }
  count_transitions(counts);
  counts.log_probability += log_probability_;
  ++counts.sequences;
  counts.tokens += static_cast<std::int64_t>(tokens_.size());
}

/// Σ_t filtered(t − 1)ᵀ · evidence(t), in tiles whose sums stay in registers, over steps that stay in
/// the first-level cache.
void ForwardBackward::count_transitions(HmmCounts& counts) const {
  constexpr std::size_t kSteps = 64, kRows = 4, kColumns = 2 * HmmTables::kLanes;
  for (std::size_t first = 1; first < tokens_.size(); first += kSteps) {
    const std::size_t last = std::min(first + kSteps, tokens_.size());
    for (std::size_t i = 0; i < width_; i += kRows) {
      for (std::size_t j = 0; j < width_; j += kColumns) {
        const std::size_t columns = std::min(kColumns, width_ - j);
        std::array<std::array<double, kColumns>, kRows> sum{};
        const auto add = [&](std::size_t n) {
          for (std::size_t t = first; t < last; ++t) {
            const double* const before = &filtered_[(t - 1) * width_ + i];
            const double* const now = &evidence_[t * width_ + j];
            for (std::size_t r = 0; r < kRows; ++r) {
#pragma omp simd
              for (std::size_t c = 0; c < n; ++c) sum[r][c] += before[r] * now[c];
            }
          }
        };
        if (columns == kColumns) {
          add(kColumns);
        } else {
          add(HmmTables::kLanes);
        }
        for (std::size_t r = 0; r < kRows; ++r) {
          double* const to = &counts.transition[(i + r) * width_ + j];
          for (std::size_t c = 0; c < columns; ++c) to[c] += sum[r][c];
        }
      }
    }
  }
}

Viterbi::Viterbi(const HmmTables& tables) : logs_(tables) {
  for (std::vector<double>* const table : {&logs_.start, &logs_.transition, &logs_.emission}) {
    for (double& value : *table) value = std::log(value);
  }
}

double Viterbi::path(std::span<const std::int32_t> tokens, std::span<std::int32_t> states) const {
  if (tokens.empty()) return 0;
  const auto width = static_cast<std::size_t>(logs_.width),
             count = static_cast<std::size_t>(logs_.states);
  constexpr double kNever = -std::numeric_limits<double>::infinity();
  std::vector<double> best(logs_.start), next(width);
  std::vector<std::int32_t> from(tokens.size() * width);
  double lost = 0;  // −∞ after a token that cannot come
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    if (t > 0) {
      std::int32_t* const back = &from[t * width];
      std::fill(next.begin(), next.end(), kNever);
      for (std::size_t i = 0; i < count; ++i) {
        const std::span<const double> row = logs_.transition_from(static_cast<std::int64_t>(i));
        for (std::size_t j = 0; j < width; ++j) {
          const double through = best[i] + row[j];
          const bool is_better = through > next[j];
          next[j] = is_better ? through : next[j];
          back[j] = is_better ? static_cast<std::int32_t>(i) : back[j];
        }
      }
      best.swap(next);
    }
    const std::span<const double> emission = logs_.emission_of(tokens[t]);
    bool is_possible = false;
    for (std::size_t j = 0; j < count; ++j) is_possible |= best[j] + emission[j] > kNever;
    if (!is_possible) lost = kNever;
    for (std::size_t j = 0; j < width && is_possible; ++j) best[j] += emission[j];
  }
  std::size_t state =
      static_cast<std::size_t>(std::max_element(best.begin(), best.end()) - best.begin());
  const double log_probability = best[state] + lost;
  for (std::size_t t = tokens.size(); t-- > 0;) {
    states[t] = static_cast<std::int32_t>(state);
    state = static_cast<std::size_t>(from[t * width + state]);
  }
  return log_probability;
}

}  // namespace carousel
