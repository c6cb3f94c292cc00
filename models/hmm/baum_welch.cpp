#include "models/hmm/baum_welch.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>

#include "models/hmm/text_pieces.h"

namespace carousel {
namespace {

/// Cuts sequences into groups of about equal numbers of tokens: the first sequence of each, and the
/// number of sequences.
std::vector<std::size_t> groups_of(std::span<const TextSequence> sequences, std::int64_t groups) {
  std::int64_t all = 0, done = 0;
  for (const TextSequence& sequence : sequences) all += sequence.count;
  std::vector<std::size_t> begin{0};
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    done += sequences[i].count;
    if (done * groups >= all * std::ssize(begin)) begin.push_back(i + 1);
  }
  if (begin.back() != sequences.size()) begin.push_back(sequences.size());
  return begin;
}

/// The threads of one pass over the sequences.
class Expectation {
 public:
  Expectation(const HmmTables& tables, const Fit& fit, std::span<const TextSequence> sequences)
      : tables_(tables),
        fit_(fit),
        sequences_(sequences),
        begin_(groups_of(sequences, most_groups(tables))),
        counts_(begin_.size() - 1) {}

  std::optional<HmmCounts> run() {
    fit_.progress("counting", 0, std::ssize(sequences_));
#pragma omp parallel
    {
      ForwardBackward passes(tables_);
      std::vector<std::int32_t> tokens;
#pragma omp for schedule(dynamic)
      for (std::size_t group = 0; group < counts_.size(); ++group) {
        try {
          count(group, passes, tokens);
        } catch (...) {  // it may not leave the threads
#pragma omp critical
          fault_ = std::current_exception();
        }
      }
    }
    if (fault_) std::rethrow_exception(fault_);
    if (fit_.stop) return {};
    HmmCounts all(tables_);
    for (const HmmCounts& counts : counts_) all.add(counts);
    return all;
  }

 private:
  static std::int64_t most_groups(const HmmTables& tables) {
    const auto bytes = static_cast<std::int64_t>(
        (tables.transition.size() + tables.emission.size()) * sizeof(double));
    return std::clamp<std::int64_t>((std::int64_t{1} << 28) / bytes, 1, 64);
  }

  void count(std::size_t group, ForwardBackward& passes, std::vector<std::int32_t>& tokens) {
    HmmCounts& counts = counts_[group] = HmmCounts(tables_);
    const TokenRange& text = fit_.corpus.train["token"];
    for (std::size_t i = begin_[group]; i < begin_[group + 1]; ++i) {
      if (fit_.stop) return;
      const TextSequence& sequence = sequences_[i];
      tokens.resize(static_cast<std::size_t>(sequence.count));
      text.read(sequence.first, sequence.count, tokens.data());
      passes.forward(tokens);
      passes.backward();
      passes.count(counts);
      const std::int64_t done = ++done_;
      if (done % 64 == 0 && omp_get_thread_num() == 0) {
        fit_.progress("counting", done, std::ssize(sequences_));
      }
    }
  }

  const HmmTables& tables_;
  const Fit& fit_;
  std::span<const TextSequence> sequences_;
  std::vector<std::size_t> begin_;  ///< of each group, and the end
  std::vector<HmmCounts> counts_;   ///< of each group
  std::atomic<std::int64_t> done_ = 0;
  std::exception_ptr fault_;
};

/// Makes counts to probabilities that sum to 1; false without any count.
template <class At>
bool normalise(std::int64_t size, const At& at) {
  double sum = 0;
  for (std::int64_t i = 0; i < size; ++i) sum += at(i);
  if (!(sum > 0)) return false;
  for (std::int64_t i = 0; i < size; ++i) at(i) /= sum;
  return true;
}

}  // namespace

std::vector<TextSequence> training_sequences(const Corpus& corpus, std::int32_t boundary,
                                             std::int64_t block) {
  std::vector<TextSequence> sequences;
  TextSequence open;
  const auto close = [&](std::int64_t next) {
    if (open.count > 0) sequences.push_back(open);
    open = {.first = next, .count = 0};
  };
  each_piece(corpus.train["token"], [&](std::int64_t at, std::span<const std::int32_t> piece) {
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const std::int64_t next = at + static_cast<std::int64_t>(i) + 1;
      const bool ends = boundary >= 0 && piece[i] == boundary;
      if (!ends || !corpus.lines) ++open.count;  // <bos> is no token of its line
      if (ends || (!corpus.lines && open.count == block)) close(next);
    }
  });
  close(0);
  return sequences;
}

std::vector<std::int64_t> token_counts(const TokenRange& tokens, std::int64_t vocabulary) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(vocabulary));
  each_piece(tokens, [&](std::int64_t, std::span<const std::int32_t> piece) {
    for (const std::int32_t token : piece) ++counts[static_cast<std::size_t>(token)];
  });
  return counts;
}

std::optional<HmmCounts> expected_counts(const HmmTables& tables, const Fit& fit,
                                         std::span<const TextSequence> sequences) {
  return Expectation(tables, fit, sequences).run();
}

HmmTables reestimated(const HmmTables& tables, const HmmCounts& counts, double smoothing,
                      std::int32_t never) {
  HmmTables next(tables.states, tables.vocabulary);
  const std::int64_t states = tables.states, width = tables.width;
  const auto of = [](std::vector<double>& values, std::int64_t i) -> double& {
    return values[static_cast<std::size_t>(i)];
  };
  for (std::int64_t j = 0; j < states; ++j) {
    of(next.start, j) = counts.start[static_cast<std::size_t>(j)] + smoothing;
  }
  const auto start = [&](std::int64_t j) -> double& { return of(next.start, j); };
  if (!normalise(states, start)) next.start = tables.start;
  for (std::int64_t i = 0; i < states; ++i) {
    const auto to = [&](std::int64_t j) -> double& { return of(next.transition, i * width + j); };
    const auto token = [&](std::int64_t x) -> double& { return of(next.emission, x * width + i); };
    for (std::int64_t j = 0; j < states; ++j) {
      const auto place = static_cast<std::size_t>(i * width + j);
      to(j) = counts.transition[place] * tables.transition[place] + smoothing;
    }
    if (!normalise(states, to)) {
      std::copy_n(tables.transition.begin() + i * width, width,
                  next.transition.begin() + i * width);
    }
    for (std::int64_t x = 0; x < tables.vocabulary; ++x) {
      if (x != never)
        token(x) = counts.emission[static_cast<std::size_t>(x * width + i)] + smoothing;
    }
    if (!normalise(tables.vocabulary, token)) {
      for (std::int64_t x = 0; x < tables.vocabulary; ++x) {
        token(x) = tables.emission[static_cast<std::size_t>(x * width + i)];
      }
    }
  }
  return next;
}

}  // namespace carousel
