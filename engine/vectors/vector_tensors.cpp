// The embeddings of a checkpoint, or of what `embed --what tokens` writes.
#include <fmt/format.h>

#include <vector>

#include "engine/files/safetensors.h"
#include "engine/text/vocabularies.h"
#include "engine/vectors/vector_formats.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr const char* kTensor = "embedding.weight";

const StoredTensor& embeddings_of(const SafetensorsFile& file) {
  if (file.contains(kTensor) && file.info(kTensor).shape.size() == 2) return file.info(kTensor);
  throw FormatError(
      fmt::format("{}: there is no tensor '{}' [words, width]: expected a model that "
                  "has embeddings of tokens",
                  file.path().string(), kTensor));
}

Vocabulary vocabulary_of(const SafetensorsFile& file) {
  const Vocabularies given = Vocabularies::read(file.metadata(), file.path().string());
  if (given.contains("token")) return given["token"];
  throw FormatError(fmt::format(
      "{}: no vocabulary among its metadata, by which embeddings are found", file.path().string()));
}

class TensorVectors final : public VectorFile {
 public:
  explicit TensorVectors(const std::filesystem::path& path)
      : VectorFile(path), file_(path), vocabulary_(vocabulary_of(file_)) {
    any_bytes_ = true;
    words_ = vocabulary_.size();
    width_ = embeddings_of(file_).shape[1];
    file_.expect_shape(kTensor, {words_, width_});
  }

 private:
  void read_all(const Take& take) const override {
    const Tensor read(Cpu{}, {words_, width_}, DType::f32);
    file_.read_into(kTensor, read);
    const std::vector<float> rows = host_floats(read);
    for (row_ = 0; row_ < words_; ++row_) {
      take(vocabulary_.token(static_cast<std::int32_t>(row_)),
           std::span(rows).subspan(static_cast<std::size_t>(row_ * width_),
                                   static_cast<std::size_t>(width_)));
    }
  }
  std::string place() const override { return fmt::format("row {} of '{}'", row_, kTensor); }

  SafetensorsFile file_;
  Vocabulary vocabulary_;
  mutable std::int64_t row_ = 0;
};

}  // namespace

std::unique_ptr<VectorFile> open_tensor_vectors(const std::filesystem::path& path) {
  return std::make_unique<TensorVectors>(path);
}

}  // namespace carousel
