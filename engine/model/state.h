#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tape/tensor.h"

namespace carousel {

/// A tensor that a model carries from one window or decoding step to the next, at a fixed address.
struct StateTensor {
  std::string name;    ///< within the model, "h_l0": checkpoints and reports use it
  Tensor value;        ///< of any element type
  int batch_axis = 0;  ///< which dimension counts the rows; −1: one for all rows of a beam
  int growth_axis =
      -1;             ///< along which the text makes it longer, as a cache; −1: its size is fixed
  Tensor position{};  ///< [1] i64 with a growth axis: entries in use, known to the device alone
};

/// Everything a model carries. Copies share the tensors.
struct State {
  std::vector<StateTensor> tensors{};

  /// A new sequence begins in every row: zeros; of a tensor that grows, no entry is in use.
  void reset() const;
  /// Row i becomes what row `row[i]` was, for row [B] i32: a beam chooses among its rows. A tensor
  /// without a batch axis stays as it is.
  void gather(const Tensor& row) const;
  /// Row i becomes row `row[i]` of `from`, a state of the same model with any number of rows.
  void gather(const State& from, const Tensor& row) const;
  /// Rows first … first + count − 1, which share their memory with these. Error if a tensor's rows
  /// are not its slowest dimension, or if it grows.
  State rows(std::int64_t first, std::int64_t count) const;
  /// Error, which names the tensors there are, if there is none of this name.
  const StateTensor& at(std::string_view name) const;
};

}  // namespace carousel
