#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tape/tensor.h"
#include "engine/text/tokens.h"

namespace carousel {

/// One named input of a model, with a T of its own.
struct Field {
  std::string name;
  Tensor values;     ///< [T, B, …] of a sequence, [B, …] otherwise
  Tensor lengths{};  ///< [B] i32: steps that belong to the row, 0 … T; empty if all do
};

/// The input of a model in one step, on the device, at addresses that stay the same. A field's T may
/// differ from batch to batch, and B too, but the shapes are few. Valid until the next call of next().
///
/// Names that samplers give: "token" [T, B] i32, the tokens to read; "target" [T, B] i32, the token
/// after each, or −1 (kIgnoreTarget) where none counts; "source" [S, B] i32, the tokens of a text that
/// conditions "token", up to its <eos>; "label" [B] i32, the class of a row;
/// "number" [B] i32, the row's number among the examples of its text; "place" [T, B] i64, where the
/// token stands in its column. The last three are −1 where they only fill up the batch.
struct Batch {
  std::int64_t rows = 0;  ///< B
  std::vector<Field> fields{};
  Tensor reset{};            ///< [T, B] i32: 1 where a row's state restarts; empty if nowhere
  bool first = false;        ///< no state is carried into this batch: it is zeroed
  std::int64_t counted = 0;  ///< targets that count, or rows that are examples
  double learning_rate_factor = 1;  ///< of the step's rate: T over StreamOptions::window, if drawn

  const Field* find(std::string_view name) const;  ///< null if there is none
  /// ConfigError that lists the fields there are if there is none of this name.
  const Field& at(std::string_view name) const;
  const Tensor& operator[](std::string_view name) const { return at(name).values; }
};

/// The position of a source of batches. A checkpoint needs to store nothing else of the source: one
/// made with the same text and options gives the same batches from here on, bit for bit.
struct DataPosition {
  std::int64_t epoch = 0;  ///< from 0
  std::int64_t index = 0;  ///< of the batch that comes next, within its epoch
  bool operator==(const DataPosition&) const = default;
};

/// An endless sequence of batches, epoch after epoch. They depend on the text, the options and the
/// position alone, and not on the device, the number of threads or the clock.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual Batch next() = 0;
  virtual DataPosition position() const = 0;
  /// FormatError for a position that this source does not have.
  virtual void seek(const DataPosition& position) = 0;
  virtual std::int64_t batches_per_epoch() const = 0;  ///< of the epoch that position() is in
  virtual std::int64_t counted_per_epoch() const = 0;  ///< Batch::counted in all, of all ranks
};

/// The rows of a process among several that train together: of every batch of world·B rows, rank r
/// has rows r·B … r·B + B − 1. All ranks have the same number of batches, and the same T in each.
struct Share {
  std::int64_t rank = 0, world = 1;

  /// Rows of the whole batch. ConfigError for a B below 1, and unless 0 ≤ rank < world.
  std::int64_t all_rows(std::int64_t batch) const;
};

/// How evaluation reads a text that is longer than a model sees at once.
struct ReadingWindows {
  std::int64_t steps = 0;   ///< tokens of a window; 0: a text is read as one, however long it is
  std::int64_t stride = 0;  ///< a window begins every so many tokens
};

/// For a text that is one stream.
struct StreamOptions {
  std::int64_t batch = 32;         ///< B: rows
  std::int64_t window = 64;        ///< T of truncated BPTT
  std::int32_t document_end = -1;  ///< token after which a row's state restarts; −1: none
  /// In evaluation, so many tokens of a batch are read again in the next, for what follows them; they are
  /// targets in the first batch alone that has them. Less than a window.
  std::int64_t overlap = 0;
  double window_deviation = 0;   ///< windows are drawn, if one of these two is positive
  double window_halving = 0;     ///< probability
  bool random_start = false;     ///< each epoch leaves out a few tokens at its start
  double reset_probability = 0;  ///< with which a row restarts at a window's begin
  std::uint64_t seed = 1;        ///< of random_start, drawn windows and restarts
  /// A stream up to this size is kept on the device.
  std::size_t device_bytes = std::size_t{1} << 30;
  Share share{};
};

/// Contiguous windows of B rows that lie side by side in the stream of N tokens: row b begins at
/// token b·⌊N / B⌋, and every batch goes on where the last one ended, so that state carries over.
/// A row's last target is the first token of the next row. An epoch's last window is shorter than T
/// if the rows are not a multiple of it; the next epoch begins with the first window again. In an
/// epoch every token is a target once, except the first token and fewer than B at the end. With
/// random_start every epoch begins at a token drawn from the first T, and N is N − T + 1 in all of
/// the above, so that epochs are equally long.
///
/// Drawn windows: T is drawn anew for each batch, from the normal distribution around `window` with
/// window_deviation; around half of `window` instead with probability window_halving. It is rounded
/// down and kept between 5 (or `window`, if that is less) and window + 4 · window_deviation. A batch's
/// learning_rate_factor is T / window, for its loss is a mean over T. The draws are a function of
/// seed, epoch and index. Source: Merity, Keskar & Socher 2018, arXiv:1708.02182, section 4.1.
///
/// With reset_probability each row of each batch restarts at its first step with this probability, so
/// that the model learns to begin in the midst of a text too. The draws are a function of seed, epoch,
/// index and row.
///
/// A stream of up to device_bytes is kept on the device, where GatherWindows makes the batches; a
/// thread reads the windows of a larger one ahead. The batches are the same.
///
/// Errors   ConfigError for B or T below 1, a deviation below 0, and probabilities outside [0, 1].
///          FormatError for a text with fewer than B·T + 1 tokens.
std::unique_ptr<BatchSource> stream_batches(const Device& device, const TokenRange& tokens,
                                            const StreamOptions& options);

/// The same for evaluation: every token but the first is a target exactly once. The N − 1 targets
/// are cut into B rows in order, of which the first (N − 1) mod B are longer by one; where a row has
/// ended, the last window has ignored targets. FormatError for a text with fewer than two tokens.
/// Windows are not drawn; random_start, reset_probability, seed and device_bytes mean nothing here.
std::unique_ptr<BatchSource> evaluation_batches(const Device& device, const TokenRange& tokens,
                                                const StreamOptions& options);

/// For a text of lines (Newline::line), and for examples that are lines.
struct LineOptions {
  std::int64_t batch = 32;  ///< B: lines at a time
  /// Of pairs: a batch has as many as so many tokens of either side are, padding too, but at least
  /// one; 0: it has `batch` pairs.
  std::int64_t tokens = 0;
  std::int32_t begin = 1;  ///< the vocabulary's <bos>
  std::int32_t answer_after =
      -1;                  ///< only what follows this token's first place is a target; −1: all
  bool shuffle = true;     ///< false: every epoch has the same order; for evaluation
  std::uint64_t seed = 1;  ///< of the shuffling
  Share share{};
};

/// One line a row, from <bos> to <eos>, every batch with a fresh state. Lines of similar length
/// share a batch, padded to a common bound (8, 16, … 40, then a quarter more each time; at most the
/// longest line), so that there are few values of T. The last batch of each bound is filled up with
/// rows of length 0. Padding has token 0 and target −1. An epoch has every line once. Unshuffled,
/// the order is by bound and then that of the text.
///
/// Memory   24 bytes of the host's a line.
/// Errors   ConfigError for B below 1. FormatError for tokens that do not begin with <bos>, and for a
///          line without the token answer_after.
std::unique_ptr<BatchSource> line_batches(const Device& device, const TokenRange& tokens,
                                          const LineOptions& options);

/// The same for lines that are examples to classify: "token" has whole lines, <bos> and <eos> too,
/// and there is no "target". `labels`, if given, are one id a line: field "label" [B]. Unshuffled,
/// field "number" [B] tells which line of the text a row is.
///
/// Errors   as line_batches(); FormatError unless there are as many labels as lines.
std::unique_ptr<BatchSource> labelled_batches(const Device& device, const TokenRange& tokens,
                                              const std::optional<TokenRange>& labels,
                                              const LineOptions& options);

/// Lines one after another in rows, for what is asked of each token.
struct PackedOptions {
  std::int64_t rows = 32, steps = 16;  ///< B, T
  std::int32_t document_end = -1;      ///< token after which a row's state restarts; −1: none
  std::int32_t answer_after = -1;      ///< as of LineOptions, but a line may lack the token
  bool whole = false;                  ///< no line goes on from one window to the next
};

/// Lines of any length, of which `lengths` has the number of tokens, in B rows of about equal length
/// that are cut into windows of T: the state carries over from window to window and restarts where
/// a line begins, and in what fills up a row. Fields "token", "target" (−1 at the last token of a line, and where it is none) and "place". All
/// batches have the same shape, so that what a line gives does not depend on the lines beside it.
///
/// Errors   ConfigError for B or T below 1, and for whole lines longer than T. FormatError unless the
///          lengths add up to the tokens.
std::unique_ptr<BatchSource> packed_batches(const Device& device, const TokenRange& tokens,
                                            const TokenRange& lengths,
                                            const PackedOptions& options);

}  // namespace carousel
