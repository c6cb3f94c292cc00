#include "models/ngram/kneser_ney.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/common/check.h"
#include "models/token_by_token.h"

namespace carousel {
namespace {

/// Part i of a table that is cut at `begin`.
template <class T>
std::span<const T> part(const Tensor& table, const Tensor& begin, std::size_t i) {
  const auto cuts = cpu_values<const std::int64_t>(begin);
  const auto first = static_cast<std::size_t>(cuts[i]);
  return cpu_values<const T>(table).subspan(first, static_cast<std::size_t>(cuts[i + 1]) - first);
}

/// The place of a token in ascending ones; their number if it is not there.
std::size_t place(std::span<const std::int32_t> tokens, std::int32_t token) {
  const auto found = std::lower_bound(tokens.begin(), tokens.end(), token);
  const bool there = found != tokens.end() && *found == token;
  return static_cast<std::size_t>(there ? found - tokens.begin() : std::ssize(tokens));
}

/// Row b of a state's histories, to be read on and written back.
class History {
 public:
  History(const Tensor& rows, std::int64_t b, const KneserNey& model, std::int32_t boundary)
      : row_(cpu_values<std::int32_t>(rows.slice(b, 1))), model_(model), boundary_(boundary) {
    for (std::int32_t& token : row_) --token;
    if (!row_.empty() && row_.front() < 0) restart();
  }
  ~History() {
    for (std::int32_t& token : row_) ++token;
  }
  History(const History&) = delete;
  History& operator=(const History&) = delete;

  void restart() { std::fill(row_.begin(), row_.end(), boundary_); }
  void read(std::int32_t token) { read_on(row_, token, boundary_); }
  double nats(std::int32_t target) const { return -std::log(model_.probability(row_, target)); }
  std::span<const std::int32_t> tokens() const { return row_; }

 private:
  std::span<std::int32_t> row_;
  const KneserNey& model_;
  std::int32_t boundary_;
};

void expect_valid(bool valid, const SafetensorsFile& file, const std::string& name,
                  const char* expected) {
  if (valid) return;
  throw FormatError(
      fmt::format("{}: '{}' is damaged, expected {}", file.path().string(), name, expected));
}

/// Cuts of a table of `size` entries into `parts` parts, none of which is empty.
void expect_cuts(const SafetensorsFile& file, const std::string& name, const Tensor& cuts,
                 std::int64_t parts, std::int64_t size) {
  const auto all = cpu_values<const std::int64_t>(cuts);
  const bool rise = std::adjacent_find(all.begin(), all.end(), std::greater_equal<>()) == all.end();
  expect_valid(rise && std::ssize(all) == parts + 1 && all.front() == 0 && all.back() == size, file,
               name, "rising offsets of the table they cut");
}

/// Tokens below `vocabulary`, ascending in each part.
void expect_tokens(const SafetensorsFile& file, const std::string& name, const Tensor& tokens,
                   const Tensor& cuts, std::int64_t vocabulary) {
  for (std::int64_t i = 0; i + 1 < cuts.size(); ++i) {
    const auto one = part<std::int32_t>(tokens, cuts, static_cast<std::size_t>(i));
    expect_valid(
        one.front() >= 0 && one.back() < vocabulary &&
            std::adjacent_find(one.begin(), one.end(), std::greater_equal<>()) == one.end(),
        file, name, "ascending tokens of the vocabulary");
  }
}

std::string name_of(std::size_t order, const char* what) {
  return fmt::format("order_{}.{}", order, what);
}

}  // namespace

void KneserNeyConfig::describe(OptionSection& section) {
  section.add("order", order, "N of the longest n-grams", {1, NgramOptions::kMostOrder});
  section
      .add("sort_bytes", sort_bytes,
           "memory for sorting n-grams; what does not fit goes through temporary files",
           {1 << 16, std::int64_t{1} << 40})
      .may_change();
}

KneserNey::KneserNey(const KneserNeyConfig& config, const Device& device, DType, const Beginning&)
    : config_(config) {
  if (!is_cpu(device)) throw ConfigError("model.kind = kneser_ney runs on the CPU alone");
}

State KneserNey::initial_state(std::int64_t batch) const {
  State state{{{.name = "history",
                .value = Tensor(Cpu{}, {batch, std::max(config_.order - 1, 1)}, DType::i32)}}};
  state.reset();
  return state;
}

/// Calls f with what each order says of the history, from the empty context up to the longest one
/// that was seen.
template <class F>
void KneserNey::each_context(std::span<const std::int32_t> history, F&& f) const {
  std::size_t context = 0;
  for (std::size_t k = 0; k < orders_.size(); ++k) {
    const NgramOrder& ngrams = orders_[k].ngrams;
    if (k > 0) {
      if (history[k - 1] < 0) return;
      const auto farthest = part<std::int32_t>(ngrams.context, ngrams.context_begin, context);
      const std::size_t found = place(farthest, history[k - 1]);
      if (found == farthest.size()) return;
      context = found + static_cast<std::size_t>(
                            cpu_values<const std::int64_t>(ngrams.context_begin)[context]);
    }
    f(Context{.token = part<std::int32_t>(ngrams.token, ngrams.token_begin, context),
              .count = part<std::int64_t>(ngrams.count, ngrams.token_begin, context),
              .total = static_cast<double>(orders_[k].total[context]),
              .discount = orders_[k].discount});
  }
}

double KneserNey::probability(std::span<const std::int32_t> history, std::int32_t token) const {
  if (token == config_.begin) return 0;
  double probability = 1 / static_cast<double>(config_.vocabulary - (config_.begin < 0 ? 0 : 1));
  each_context(history, [&](const Context& context) {
    probability *= context.backed_off();
    const std::size_t found = place(context.token, token);
    if (found == context.token.size()) return;
    probability += (static_cast<double>(context.count[found]) - context.discount) / context.total;
  });
  return probability;
}

void KneserNey::probabilities(std::span<const std::int32_t> history, std::span<double> all) const {
  std::fill(all.begin(), all.end(),
            1 / static_cast<double>(config_.vocabulary - (config_.begin < 0 ? 0 : 1)));
  if (config_.begin >= 0) all[static_cast<std::size_t>(config_.begin)] = 0;
  each_context(history, [&](const Context& context) {
    const double kept = context.backed_off();
    for (double& probability : all) probability *= kept;
    for (std::size_t i = 0; i < context.token.size(); ++i) {
      all[static_cast<std::size_t>(context.token[i])] +=
          (static_cast<double>(context.count[i]) - context.discount) / context.total;
    }
  });
}

Objective KneserNey::objective(Pass& pass, const Batch& batch, const State& state) {
  const Tensor histories = carried_copy(pass, state.at("history").value);
  return objective_token_by_token(
      pass, batch, [&](std::int64_t b) { return History(histories, b, *this, boundary_); });
}

Tensor KneserNey::logits(Pass& pass, const Field& token, const State& state) {
  const std::int64_t rows = token.values.shape()[1];
  const Tensor logits = pass.tape().tensor({rows, config_.vocabulary}, DType::f32);
  const Tensor histories = carried_copy(pass, state.at("history").value);
  std::vector<double> all(static_cast<std::size_t>(config_.vocabulary));
  for (std::int64_t b = 0; b < rows; ++b) {
    History history(histories, b, *this, boundary_);
    read_row(token, b, history);
    probabilities(history.tokens(), all);
    std::transform(all.begin(), all.end(), cpu_values<float>(logits.slice(b, 1)).begin(),
                   [](double probability) { return static_cast<float>(std::log(probability)); });
  }
  return logits;
}

bool KneserNey::fit(const Fit& fit) {
  boundary_ = fit.corpus.lines ? config_.begin : fit.corpus.document_end;
  std::vector<NgramOrder> orders =
      count_ngrams(fit, {.order = config_.order,
                         .vocabulary = config_.vocabulary,
                         .begin = config_.begin,
                         .boundary = boundary_,
                         .sort_bytes = static_cast<std::size_t>(config_.sort_bytes)});
  if (orders.empty()) return false;
  take(std::move(orders));
  return true;
}

/// Computes what follows from the counts.
void KneserNey::take(std::vector<NgramOrder> orders) {
  orders_.clear();
  for (NgramOrder& ngrams : orders) {
    Order& order = orders_.emplace_back();
    const auto counts = cpu_values<const std::int64_t>(ngrams.count);
    const auto ones = static_cast<double>(std::count(counts.begin(), counts.end(), 1)),
               twos = static_cast<double>(std::count(counts.begin(), counts.end(), 2));
    order.discount = ones > 0 ? ones / (ones + 2 * twos) : 0.5;
    for (std::int64_t i = 0; i + 1 < ngrams.token_begin.size(); ++i) {
      std::int64_t total = 0;
      for (const std::int64_t count :
           part<std::int64_t>(ngrams.count, ngrams.token_begin, static_cast<std::size_t>(i))) {
        total += count;
      }
      order.total.push_back(total);
    }
    order.ngrams = std::move(ngrams);
  }
}

std::vector<NamedTensor> KneserNey::tables() const {
  const Tensor boundary(Cpu{}, {1}, DType::i32);
  copy_from_host(boundary, &boundary_);
  std::vector<NamedTensor> tables{{"boundary", boundary}};
  for (std::size_t k = 1; k <= orders_.size(); ++k) {
    const NgramOrder& ngrams = orders_[k - 1].ngrams;
    if (k > 1) {
      tables.push_back({name_of(k, "context"), ngrams.context});
      tables.push_back({name_of(k, "context_begin"), ngrams.context_begin});
    }
    tables.push_back({name_of(k, "token_begin"), ngrams.token_begin});
    tables.push_back({name_of(k, "token"), ngrams.token});
    tables.push_back({name_of(k, "count"), ngrams.count});
  }
  return tables;
}

void KneserNey::load(const SafetensorsFile& file) {
  const auto read = [&](const std::string& name, DType dtype) {
    const StoredTensor& stored = file.info(name);
    expect_valid(stored.shape.size() == 1 && stored.shape[0] > 0, file, name, "a list");
    const Tensor tensor(Cpu{}, {stored.shape[0]}, dtype);
    file.read_into(name, tensor);
    return tensor;
  };
  boundary_ = cpu_values<std::int32_t>(read("boundary", DType::i32))[0];
  expect_valid(boundary_ >= -1 && boundary_ < config_.vocabulary, file, "boundary",
               "a token or -1");
  std::vector<NgramOrder> orders;
  std::int64_t below = 1;  // contexts of the order below
  for (std::size_t k = 1; k <= static_cast<std::size_t>(config_.order); ++k) {
    NgramOrder ngrams{.context = {},
                      .context_begin = {},
                      .token_begin = read(name_of(k, "token_begin"), DType::i64),
                      .token = read(name_of(k, "token"), DType::i32),
                      .count = read(name_of(k, "count"), DType::i64)};
    if (k > 1) {
      ngrams.context = read(name_of(k, "context"), DType::i32);
      ngrams.context_begin = read(name_of(k, "context_begin"), DType::i64);
      expect_cuts(file, name_of(k, "context_begin"), ngrams.context_begin, below,
                  ngrams.context.size());
      expect_tokens(file, name_of(k, "context"), ngrams.context, ngrams.context_begin,
                    config_.vocabulary);
      below = ngrams.context.size();
    }
    expect_cuts(file, name_of(k, "token_begin"), ngrams.token_begin, below, ngrams.token.size());
    expect_tokens(file, name_of(k, "token"), ngrams.token, ngrams.token_begin, config_.vocabulary);
    const auto counts = cpu_values<const std::int64_t>(ngrams.count);
    // Sums of a context stay far from overflow, as those of any text do.
    constexpr std::int64_t kMost = std::int64_t{1} << 40;
    expect_valid(counts.size() == static_cast<std::size_t>(ngrams.token.size()) &&
                     std::all_of(counts.begin(), counts.end(),
                                 [](std::int64_t count) { return count > 0 && count < kMost; }),
                 file, name_of(k, "count"), "a count for each n-gram");
    orders.push_back(std::move(ngrams));
  }
  take(std::move(orders));
}

std::string KneserNey::summary() const {
  std::string text;
  for (std::size_t k = 1; k <= orders_.size(); ++k) {
    text += fmt::format("{}{} {}-grams", k == 1 ? "" : ", ", orders_[k - 1].ngrams.token.size(), k);
  }
  return text;
}

}  // namespace carousel
