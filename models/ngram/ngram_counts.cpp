#include "models/ngram/ngram_counts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <string>

#include "kernels/common/check.h"
#include "models/ngram/key_counter.h"

namespace carousel {
namespace {

constexpr std::int64_t kPiece = std::int64_t{1} << 16;  // what is done between reports

using Ngram = std::array<std::int32_t, NgramOptions::kMostOrder>;

/// n-grams as keys: whole tokens in 64-bit words, the first token highest.
struct KeyLayout {
  explicit KeyLayout(std::int64_t vocabulary)
      : bits(std::max(
            1, static_cast<int>(std::bit_width(static_cast<std::uint64_t>(vocabulary - 1))))) {}
  int bits;
  int per_word() const { return 64 / bits; }
  int words(int order) const { return (order + per_word() - 1) / per_word(); }
  std::size_t word(int i) const { return static_cast<std::size_t>(i / per_word()); }
  int shift(int i) const { return (per_word() - 1 - i % per_word()) * bits; }
};

template <std::size_t Words>
Key<Words> key_of(const KeyLayout& layout, const Ngram& ngram, int order) {
  Key<Words> key{};
  for (int i = 0; i < order; ++i) {
    const auto token = static_cast<std::uint64_t>(ngram[static_cast<std::size_t>(i)]);
    key[layout.word(i)] |= token << layout.shift(i);
  }
  return key;
}

template <std::size_t Words>
Ngram ngram_of(const KeyLayout& layout, const Key<Words>& key, int order) {
  const std::uint64_t mask = (std::uint64_t{1} << layout.bits) - 1;
  Ngram ngram{};
  for (int i = 0; i < order; ++i) {
    ngram[static_cast<std::size_t>(i)] =
        static_cast<std::int32_t>((key[layout.word(i)] >> layout.shift(i)) & mask);
  }
  return ngram;
}

template <class T>
Tensor tensor_of(const std::vector<T>& values) {
  Tensor tensor(Cpu{}, {std::ssize(values)}, dtype_of<T>());
  copy_from_host(tensor, values.data());
  return tensor;
}

/// Lays out the n-grams of an order, which come sorted.
class OrderBuilder {
 public:
  explicit OrderBuilder(int order) : contexts_(static_cast<std::size_t>(order) - 1) {}

  void add(const Ngram& ngram, std::int64_t count) {
    const auto end = ngram.begin() + static_cast<std::ptrdiff_t>(contexts_);
    const auto differs =
        token_.empty() ? ngram.begin() : std::mismatch(ngram.begin(), end, last_.begin()).first;
    if (token_.empty() || differs != end) {
      if (contexts_ > 0) {
        if (token_.empty() || differs != end - 1) context_begin_.push_back(std::ssize(context_));
        context_.push_back(*(end - 1));
      }
      token_begin_.push_back(std::ssize(token_));
    }
    token_.push_back(*end);
    count_.push_back(count);
    last_ = ngram;
  }
  NgramOrder finish() {
    token_begin_.push_back(std::ssize(token_));
    NgramOrder order{.context = {},
                     .context_begin = {},
                     .token_begin = tensor_of(token_begin_),
                     .token = tensor_of(token_),
                     .count = tensor_of(count_)};
    if (contexts_ == 0) return order;
    context_begin_.push_back(std::ssize(context_));
    order.context = tensor_of(context_);
    order.context_begin = tensor_of(context_begin_);
    return order;
  }
  std::int64_t ngrams() const { return std::ssize(token_); }

 private:
  std::size_t contexts_;  ///< tokens of a context
  Ngram last_{};
  std::vector<std::int32_t> context_, token_;
  std::vector<std::int64_t> context_begin_, token_begin_, count_;
};

/// Calls f with each N-gram of the text, its context nearest first; false if it was stopped.
template <class F>
bool each_ngram(const Fit& fit, const NgramOptions& options, F&& f) {
  const TokenRange& tokens = fit.corpus.train["token"];
  const std::int32_t answer_after = fit.corpus.answer_after;
  const auto contexts = static_cast<std::size_t>(options.order) - 1;
  std::vector<std::int32_t> piece(static_cast<std::size_t>(std::min(kPiece, tokens.count)));
  Ngram ngram{};
  const std::span history(ngram.data(), contexts);
  std::fill(history.begin(), history.end(), options.boundary);
  bool answers = answer_after < 0;
  for (std::int64_t at = 0; at < tokens.count; at += kPiece) {
    fit.progress("reading", at, tokens.count);
    if (fit.stop) return false;
    const std::int64_t count = std::min(kPiece, tokens.count - at);
    tokens.read(at, count, piece.data());
    for (const std::int32_t token : std::span(piece).first(static_cast<std::size_t>(count))) {
      const bool is_whole = contexts == 0 || history.back() >= 0;
      if (answers && is_whole && token != options.begin) {
        ngram[contexts] = token;
        f(ngram);
      }
      if (answer_after >= 0) answers = token != options.begin && (answers || token == answer_after);
      read_on(history, token, options.boundary);
    }
  }
  return true;
}

template <std::size_t Words>
std::vector<NgramOrder> count(const Fit& fit, const NgramOptions& options,
                              const KeyLayout& layout) {
  // Two counters at a time: one is drained into the next.
  const std::size_t bytes = options.sort_bytes / 2;
  const TokenRange& tokens = fit.corpus.train["token"];
  auto counter = std::make_unique<KeyCounter<Words>>(bytes, tokens.count, fit.scratch);
  if (!each_ngram(fit, options, [&](const Ngram& ngram) {
        counter->add(key_of<Words>(layout, ngram, options.order));
      })) {
    return {};
  }
  std::vector<NgramOrder> orders(static_cast<std::size_t>(options.order));
  std::int64_t expected = tokens.count;
  for (int order = options.order; order > 0; --order) {
    const std::string phase = fmt::format("sorting {}-grams", order);
    auto below =
        order == 1 ? nullptr : std::make_unique<KeyCounter<Words>>(bytes, expected, fit.scratch);
    OrderBuilder builder(order);
    counter->drain([&](const Key<Words>& key, std::int64_t count) {
      Ngram ngram = ngram_of(layout, key, order);
      if (builder.ngrams() % kPiece == 0) fit.progress(phase, builder.ngrams(), expected);
      builder.add(ngram, count);
      if (order == 1) return true;
      // Without the farthest token, which stands before the last.
      ngram[static_cast<std::size_t>(order) - 2] = ngram[static_cast<std::size_t>(order) - 1];
      below->add(key_of<Words>(layout, ngram, order - 1));
      return !fit.stop;
    });
    if (fit.stop) return {};
    expected = builder.ngrams();
    if (expected == 0) {
      throw FormatError(fmt::format("{}: {} to train on, expected an n-gram of order {}",
                                    tokens.name, tokens.count, options.order));
    }
    orders[static_cast<std::size_t>(order) - 1] = builder.finish();
    counter = std::move(below);
  }
  return orders;
}

}  // namespace

void read_on(std::span<std::int32_t> history, std::int32_t token, std::int32_t boundary) {
  if (token == boundary) {
    std::fill(history.begin(), history.end(), boundary);
  } else if (!history.empty()) {
    std::copy_backward(history.begin(), history.end() - 1, history.end());
    history.front() = token;
  }
}

std::vector<NgramOrder> count_ngrams(const Fit& fit, const NgramOptions& options) {
  const KeyLayout layout(options.vocabulary);
  switch (layout.words(options.order)) {
    case 1:
      return count<1>(fit, options, layout);
    case 2:
      return count<2>(fit, options, layout);
    case 3:
      return count<3>(fit, options, layout);
    default:
      return count<4>(fit, options, layout);
  }
}

}  // namespace carousel
