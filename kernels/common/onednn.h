#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <string>
#include <vector>

#include "kernels/common/cpu_product.h"

// oneDNN's compiled products, for cpu_product.cpp alone, and oneDNN's threads and version.
namespace carousel::onednn {

/// Memory that only grows, aligned to a cache line.
class Scratch {
 public:
  void* bytes(std::size_t count) {
    const std::size_t lines = (count + sizeof(Line) - 1) / sizeof(Line);
    if (lines > lines_.size()) lines_ = std::vector<Line>(lines);
    return lines_.data();
  }
  float* floats(std::int64_t count) {
    return static_cast<float*>(bytes(static_cast<std::size_t>(count) * sizeof(float)));
  }

 private:
  struct alignas(64) Line {
    std::array<float, 16> values;
  };
  std::vector<Line> lines_;
};

/// Everything a oneDNN product is compiled for.
struct ProductKey {
  dnnl::memory::data_type type = dnnl::memory::data_type::f32;    ///< of A and B
  dnnl::memory::data_type result = dnnl::memory::data_type::f32;  ///< of C
  std::int64_t m = 0, n = 0, k = 0;
  /// Elements between the starts of a matrix's rows in memory.
  std::int64_t row_of_a = 0, row_of_b = 0, row_of_c = 0;
  std::int64_t packed_rows = -1;  ///< PackedShape::rows; −1: B is not packed
  bool transpose_a = false, transpose_b = false, accumulate = false, bias = false;
  int thread_count = 1;
  auto operator<=>(const ProductKey&) const = default;
};

struct Operands {
  const void* a = nullptr;
  const void* b = nullptr;
  dnnl_memory_t packed_b = nullptr;  ///< instead of b
  const float* bias = nullptr;
  void* c = nullptr;
};

const dnnl::engine& engine();

/// The number of threads that a product started by the calling thread uses.
int threads();

/// "cpu, 2 threads; oneDNN 2.7.2", and the settings that limit either.
std::string description();

/// A row-major [rows, columns] matrix, or the transpose of a row-major [columns, rows] one.
/// Rows in memory are `row` elements apart; 0: they follow one another.
dnnl::memory::desc plain(std::int64_t rows, std::int64_t columns, bool transposed,
                         std::int64_t row = 0,
                         dnnl::memory::data_type type = dnnl::memory::data_type::f32);

/// The layout of B that oneDNN prefers for products of this shape. It may depend on the number of
/// threads. It is asked for once per shape, so that code that allocates, fills and reads a packed B
/// uses one layout.
dnnl::memory::desc packed_layout(const PackedShape& shape, dnnl::memory::data_type type);

/// A compiled product and the descriptors of its operands. Building one takes a fraction of a
/// millisecond, running it microseconds.
class CompiledProduct {
 public:
  explicit CompiledProduct(const ProductKey& key);
  void run(const dnnl::stream& stream, Scratch& scratch, const Operands& operands);
  /// oneDNN's name for it: "brg:avx512_core".
  const std::string& algorithm() const { return algorithm_; }

 private:
  void add(int name, const dnnl::memory::desc& layout);

  dnnl::matmul product_;
  std::array<dnnl::memory, 5> operands_;
  std::array<int, 5> names_{};
  std::size_t count_ = 0, scratch_bytes_ = 0;
  std::string algorithm_;
};

/// The primitives and memory that a calling thread keeps between products. They are per thread,
/// because the operands and scratch memory of a primitive serve one call at a time. So products
/// need no lock.
class Workspace {
 public:
  static Workspace& mine();

  void run(const ProductKey& key, const Operands& operands);

  dnnl::stream stream{engine()};
  Scratch a, b, c;  ///< operands widened to float

 private:
  std::map<ProductKey, CompiledProduct> compiled_;
  Scratch scratch_;
};

}  // namespace carousel::onednn
