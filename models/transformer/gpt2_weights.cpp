#include "models/transformer/gpt2_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "engine/files/tensor_names.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::string_view kPrefix = "transformer.", kEmbedding = "transformer.wte.weight",
                           kHead = "lm_head.weight";

/// "c_attn" of "transformer.h.0.attn.c_attn.weight" for the matrix of a product, nothing for others.
std::string_view product_of(std::string_view name) {
  for (const std::string_view product : {"c_attn", "c_proj", "c_fc"}) {
    if (name.ends_with(fmt::format(".{}.weight", product))) return product;
  }
  return {};
}

/// How a file holds the tensors of a model.
class Gpt2File {
 public:
  Gpt2File(const SafetensorsFile& file, std::span<const NamedTensor> tensors)
      : file_(file),
        tensors_(tensors),
        bare_(!file.contains(std::string(kEmbedding)) &&
              file.contains(std::string(kEmbedding.substr(kPrefix.size())))) {
    expect_names();
    for (const NamedTensor& t : tensors_) expect_one_way(t);
    for (const NamedTensor& t : tensors_) file_.fit(stored_name(t.name), as_stored(t));
  }

  void read() const {
    for (const NamedTensor& t : tensors_) {
      const Tensor stored = as_stored(t);
      file_.read_into(stored_name(t.name), stored);
      if (!lies_transposed(t)) continue;
      const auto rows = stored.shape()[0], columns = stored.shape()[1];
      const auto from = stored.view<float, 2>();
      std::vector<float> turned(static_cast<std::size_t>(stored.size()));
      for (std::int64_t column = 0; column < columns; ++column) {
        for (std::int64_t row = 0; row < rows; ++row) {
          turned[static_cast<std::size_t>(column * rows + row)] = from(row, column);
        }
      }
      copy_from_host(t.tensor, turned.data());
    }
  }

 private:
  std::string stored_name(std::string_view name) const {
    return std::string(bare_ && name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name);
  }

  bool is_mask(std::string_view name) const {
    const StoredTensor& stored = file_.info(std::string(name));
    if (!name.starts_with(bare_ ? "h." : "transformer.h.")) return false;
    return name.ends_with(".attn.masked_bias") ||
           (name.ends_with(".attn.bias") && stored.shape.size() == 4);
  }

  /// Whether the file's output matrix is the embedding once more, as that of a tied model.
  bool is_tied_head(std::string_view name, const std::vector<std::string>& expected) const {
    const std::string embedding = stored_name(kEmbedding), head(kHead);
    if (name != kHead || std::find(expected.begin(), expected.end(), head) != expected.end()) {
      return false;
    }
    if (!file_.contains(embedding) || file_.bytes(head) == file_.bytes(embedding)) return true;
    throw FormatError(fmt::format(
        "{}: '{}' is not '{}', and model.tie_weights is true, expected the same numbers",
        file_.path().string(), head, embedding));
  }

  void expect_names() const {
    std::vector<std::string> expected, there;
    for (const NamedTensor& t : tensors_) expected.push_back(stored_name(t.name));
    for (const std::string& name : file_.names()) {
      if (!is_mask(name) && !is_tied_head(name, expected)) there.push_back(name);
    }
    expect_same_names(file_.path().string(), there, expected);
  }

  /// Takes from a c_attn which way matrices lie, and expects that of all.
  void expect_one_way(const NamedTensor& t) {
    if (product_of(t.name) != "c_attn") return;
    const std::string name = stored_name(t.name);
    const std::int64_t rows = t.tensor.shape()[0], columns = t.tensor.shape()[1];
    const std::vector<std::int64_t>& shape = file_.info(name).shape;
    const bool turned = shape == std::vector{columns, rows};
    if (!turned && shape != std::vector{rows, columns}) return;  // it fits neither way
    if (first_.empty()) first_ = name;
    if (name == first_) transposed_ = turned;
    if (turned == transposed_) return;
    throw FormatError(fmt::format("{}: '{}' is {} and '{}' is {}, expected all matrices one way",
                                  file_.path().string(), first_, file_.info(first_).text(), name,
                                  file_.info(name).text()));
  }

  bool lies_transposed(const NamedTensor& t) const {
    return transposed_ && !product_of(t.name).empty();
  }

  /// What the file's tensor is read into: the model's own, or another of the file's shape.
  Tensor as_stored(const NamedTensor& t) const {
    if (!lies_transposed(t)) return t.tensor;
    return {Cpu{}, {t.tensor.shape()[1], t.tensor.shape()[0]}, t.tensor.dtype()};
  }

  const SafetensorsFile& file_;
  const std::span<const NamedTensor> tensors_;
  const bool bare_;  ///< names have no prefix
  bool transposed_ = false;
  std::string first_;  ///< the tensor that said so
};

}  // namespace

void read_gpt2_weights(const SafetensorsFile& file, std::span<const NamedTensor> tensors) {
  Gpt2File(file, tensors).read();
}

}  // namespace carousel
