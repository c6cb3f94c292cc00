#include "engine/generation/beam.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "kernels/common/check.h"

namespace carousel {

void BeamOptions::check() const {
  const auto refuse = [](const char* what, auto value, const std::string& expected) {
    throw ConfigError(fmt::format("beam search: {} is {}, expected {}", what, value, expected));
  };
  if (beam < 1 || beam > kWidest) refuse("the beam", beam, fmt::format("1 to {}", kWidest));
  if (best < 1 || best > beam) {
    refuse("the number of hypotheses that are wanted", best,
           fmt::format("1 to the beam, {}", beam));
  }
  if (sampling && beam != 1) refuse("the beam", beam, "1 where tokens are drawn");
  // Written so that NaN fails.
  const std::string at_least_none = "a number of at least 0";
  const auto expect_number = [&](const char* what, double value) {
    if (!(value >= 0 && std::isfinite(value))) refuse(what, value, at_least_none);
  };
  expect_number("the length penalty", length_penalty);
  expect_number("the coverage penalty", coverage_penalty);
  expect_number("the factor of the longest length", longest_factor);
  expect_number("the constant of the longest length", longest_constant);
}

std::int64_t BeamOptions::longest(std::int64_t source) const {
  constexpr double kMost = 1 << 24;
  const double tokens = std::floor(longest_factor * static_cast<double>(source)) + longest_constant;
  return static_cast<std::int64_t>(std::clamp(tokens, 1.0, kMost));
}

Beam::Beam(const BeamOptions& options, std::int32_t end, std::int64_t source)
    : options_(options), end_(end), source_(source), longest_(options.longest(source)) {}

double Beam::length_divisor(std::int64_t tokens) const {
  return std::pow((5.0 + static_cast<double>(tokens)) / 6.0, options_.length_penalty);
}

double Beam::coverage(const std::vector<float>& alignment) const {
  if (options_.coverage_penalty == 0) return 0;
  const auto places = static_cast<std::size_t>(source_);
  double sum_of_logs = 0;
  for (std::size_t i = 0; i < places; ++i) {
    double sum = 0;
    for (std::size_t at = i; at < alignment.size(); at += places) {
      sum += static_cast<double>(alignment[at]);
    }
    constexpr double kLeast = std::numeric_limits<float>::min();
    sum_of_logs += std::log(std::clamp(sum, kLeast, 1.0));
  }
  return options_.coverage_penalty * sum_of_logs;
}

void Beam::finish(const Extension& last, bool ended) {
  Hypothesis found{.tokens = {last.token}, .ended = ended, .log_probability = last.log_probability};
  // From the end back to the begin: step t has the token after t others.
  std::vector<std::int32_t> rows{last.row};
  for (std::size_t t = steps_.size(); t-- > 0;) {
    const Extension& before = steps_[t][static_cast<std::size_t>(rows.back())];
    found.tokens.push_back(before.token);
    rows.push_back(before.row);
  }
  std::reverse(found.tokens.begin(), found.tokens.end());
  std::reverse(rows.begin(), rows.end());
  for (std::size_t t = 0; t < rows.size() && !alignments_[t].empty(); ++t) {
    const auto first = alignments_[t].begin() + rows[t] * source_;
    found.alignment.insert(found.alignment.end(), first, first + source_);
  }
  found.score =
      found.log_probability / length_divisor(std::ssize(found.tokens)) + coverage(found.alignment);
  if (!options_.aligned) found.alignment.clear();
  const auto is_better = [](const Hypothesis& a, const Hypothesis& b) {
    return std::pair(a.ended, a.score) > std::pair(b.ended, b.score);
  };
  finished_.insert(std::upper_bound(finished_.begin(), finished_.end(), found, is_better), found);
  if (std::ssize(finished_) > options_.best) finished_.pop_back();
}

void Beam::extend(std::vector<Extension> candidates, std::vector<float> alignment) {
  std::erase_if(candidates, [](const Extension& c) { return std::isinf(c.log_probability); });
  std::sort(candidates.begin(), candidates.end(), [](const Extension& a, const Extension& b) {
    return std::tuple(-a.log_probability, a.token, a.row) <
           std::tuple(-b.log_probability, b.token, b.row);
  });
  alignments_.push_back(std::move(alignment));
  std::vector<Extension> next;
  for (const Extension& candidate : candidates) {
    if (candidate.token == end_) {
      finish(candidate, /*ended=*/true);
    } else {
      next.push_back(candidate);
    }
    if (std::ssize(next) == options_.beam) break;
  }
  if (std::ssize(alignments_) == longest_) {
    for (const Extension& candidate : next) finish(candidate, /*ended=*/false);
    over_ = true;
  }
  steps_.push_back(next);
  rows_ = std::move(next);
  over_ = over_ || is_settled();
}

bool Beam::is_settled() const {
  if (rows_.empty()) return true;
  if (std::ssize(finished_) < options_.best) return false;
  if (options_.beam == 1) return true;
  return rows_.front().log_probability / length_divisor(longest_) <= finished_.back().score;
}

}  // namespace carousel
