#include "kernels/common/cpu_product.h"

#include <omp.h>

#include <algorithm>
#include <array>
#include <compare>
#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <type_traits>
#include <utility>
#include <vector>

namespace carousel {
namespace {

using dnnl::memory;

constexpr std::int64_t kParallelElements = 32 * 1024;  // below this a second thread costs more

/// oneDNN's threads, as it would choose them here: part of what a primitive is built for.
int threads() { return omp_in_parallel() ? 1 : omp_get_max_threads(); }

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

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
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t packed_rows = -1;  ///< PackedShape::rows; −1: B is not packed
  bool transpose_a = false, transpose_b = false, accumulate = false, bias = false;
  int thread_count = 1;
  auto operator<=>(const ProductKey&) const = default;
};

struct Operands {
  const float* a = nullptr;
  const float* b = nullptr;
  dnnl_memory_t packed_b = nullptr;  ///< instead of b
  const float* bias = nullptr;
  float* c = nullptr;
};

memory::desc plain(std::int64_t rows, std::int64_t columns, bool transposed) {
  return {{rows, columns},
          memory::data_type::f32,
          transposed ? memory::format_tag::ba : memory::format_tag::ab};
}

/// The layout oneDNN likes B in for products of this shape.
memory::desc find_packed_layout(const PackedShape& shape) {
  const std::int64_t rows = std::max<std::int64_t>(shape.rows, 1);
  const memory::desc b({shape.k, shape.n}, memory::data_type::f32, memory::format_tag::any);
  return dnnl::matmul::primitive_desc({plain(rows, shape.k, false), b, plain(rows, shape.n, false)},
                                      engine())
      .weights_desc();
}

/// A compiled product and the descriptors of its operands. Building one takes a fraction of a
/// millisecond, running it microseconds.
class CompiledProduct {
 public:
  explicit CompiledProduct(const ProductKey& key) {
    const memory::desc a = plain(key.m, key.k, key.transpose_a);
    const memory::desc b =
        key.packed_rows < 0 ? plain(key.k, key.n, key.transpose_b)
                            : find_packed_layout({.k = key.k, .n = key.n, .rows = key.packed_rows});
    const memory::desc c = plain(key.m, key.n, false);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (key.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum();
      attributes.set_post_ops(sum);
    }
    const auto descriptor =
        key.bias
            ? dnnl::matmul::primitive_desc({a, b, plain(1, key.n, false), c}, attributes, engine())
            : dnnl::matmul::primitive_desc({a, b, c}, attributes, engine());
    scratch_bytes_ = descriptor.scratchpad_desc().get_size();
    product_ = dnnl::matmul(descriptor);
    add(DNNL_ARG_SRC, a);
    add(DNNL_ARG_WEIGHTS, b);
    add(DNNL_ARG_DST, c);
    add(DNNL_ARG_SCRATCHPAD, descriptor.scratchpad_desc());
    if (key.bias) add(DNNL_ARG_BIAS, plain(1, key.n, false));
  }

  void run(const dnnl::stream& stream, Scratch& scratch, const Operands& x) {
    const std::array<const void*, 5> data{x.a, x.b, x.c, scratch.bytes(scratch_bytes_), x.bias};
    std::array<dnnl_exec_arg_t, 5> arguments{};
    for (std::size_t i = 0; i < count_; ++i) {
      arguments[i] = {names_[i], operands_[i].get()};
      if (names_[i] == DNNL_ARG_WEIGHTS && x.packed_b != nullptr) {
        arguments[i].memory = x.packed_b;  // a new handle would zero its padding at every call
      } else {
        operands_[i].set_data_handle(const_cast<void*>(data[i]));  // inputs are only read
      }
    }
    // The C function: the C++ one builds a map and a vector at every call.
    dnnl::error::wrap_c_api(dnnl_primitive_execute(product_.get(), stream.get(),
                                                   static_cast<int>(count_), arguments.data()),
                            "oneDNN could not run a product");
  }

 private:
  void add(int name, const memory::desc& layout) {
    names_[count_] = name;
    operands_[count_++] = memory(layout, engine(), nullptr);
  }

  dnnl::matmul product_;
  std::array<memory, 5> operands_;
  std::array<int, 5> names_{};
  std::size_t count_ = 0, scratch_bytes_ = 0;
};

/// What a calling thread keeps between products. Per thread, because a oneDNN primitive's operands
/// and scratch memory serve one call at a time; so products need no lock.
struct Workspace {
  dnnl::stream stream{engine()};
  std::map<ProductKey, CompiledProduct> compiled;
  std::map<ProductKey, memory::desc> layouts;
  Scratch scratch, a, b, c;

  void run(const ProductKey& key, const Operands& operands) {
    found_or_made(compiled, key, [&] {
      return CompiledProduct(key);
    }).run(stream, scratch, operands);
  }

  const memory::desc& packed_layout(const PackedShape& shape) {
    return found_or_made(layouts, {.n = shape.n, .k = shape.k, .packed_rows = shape.rows},
                         [&] { return find_packed_layout(shape); });
  }

 private:
  template <class Value, class Make>
  static Value& found_or_made(std::map<ProductKey, Value>& known, const ProductKey& key,
                              const Make& make) {
    constexpr std::size_t kMost = 512;  // shapes; a run that shows more of them is not slowed much
    const auto found = known.find(key);
    if (found != known.end()) return found->second;
    if (known.size() >= kMost) known.clear();
    return known.emplace(key, make()).first->second;
  }
};

Workspace& workspace() {
  thread_local Workspace mine;
  return mine;
}

/// Calls f(first, last) on pieces of [0, count), on several threads if there is enough to do.
template <class F>
void for_pieces(std::int64_t count, const F& f) {
  constexpr std::int64_t kPiece = 8 * 1024;
#pragma omp parallel for schedule(static) if (count >= kParallelElements)
  for (std::int64_t first = 0; first < count; first += kPiece) {
    f(first, std::min(first + kPiece, count));
  }
}

void widen(const bf16* from, float* to, std::int64_t count) {
  for_pieces(count, [=](std::int64_t first, std::int64_t last) {
#pragma omp simd
    for (std::int64_t i = first; i < last; ++i) to[i] = from[i];
  });
}

/// The empty sum: what a product is when k is 0.
template <class Acc, class Out>
void bias_only(std::int64_t m, std::int64_t n, const Acc* bias, Out* c, bool accumulate) {
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      Out& out = c[i * n + j];
      const Acc sum = accumulate ? static_cast<Acc>(out) : Acc{0};
      out = static_cast<Out>(bias == nullptr ? sum : sum + bias[j]);
    }
  }
}

/// Which of oneDNN's two ways is the faster one was measured (Zen 5, two threads). sgemm needs no
/// compiled shape and wins by up to 2× for tiny m and by a tenth for large untransposed products;
/// the compiled one adds the bias on the way out, and wins by up to 2.8× where a transposed operand
/// meets a narrow one.
bool compile_pays(const CpuProduct<float>& p) {
  constexpr std::int64_t kNarrow = 256, kTiny = 8;
  if (p.m <= kTiny) return false;
  if (p.bias != nullptr) return true;
  return (p.transpose_b && std::min(p.m, p.n) <= kNarrow) || (p.transpose_a && p.n <= kNarrow);
}

void multiply_float(const CpuProduct<float>& p) {
  if (compile_pays(p)) {
    return workspace().run({.m = p.m,
                            .n = p.n,
                            .k = p.k,
                            .transpose_a = p.transpose_a,
                            .transpose_b = p.transpose_b,
                            .accumulate = p.accumulate,
                            .bias = p.bias != nullptr,
                            .thread_count = threads()},
                           {.a = p.a, .b = p.b, .bias = p.bias, .c = p.c});
  }
  const bool adds = p.accumulate || p.bias != nullptr;
  if (p.bias != nullptr) bias_only(p.m, p.n, p.bias, p.c, p.accumulate);
  dnnl::error::wrap_c_api(dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n,
                                     p.k, 1.0F, p.a, p.transpose_a ? p.m : p.k, p.b,
                                     p.transpose_b ? p.k : p.n, adds ? 1.0F : 0.0F, p.c, p.n),
                          "oneDNN could not run a product");
}

template <class Out>
void multiply_bf16(const CpuProduct<bf16, Out>& p) {
  Workspace& own = workspace();
  float* const a = own.a.floats(p.m * p.k);
  float* const b = own.b.floats(p.k * p.n);
  widen(p.a, a, p.m * p.k);
  widen(p.b, b, p.k * p.n);
  CpuProduct<float> wide{.transpose_a = p.transpose_a,
                         .transpose_b = p.transpose_b,
                         .accumulate = p.accumulate,
                         .m = p.m,
                         .n = p.n,
                         .k = p.k,
                         .a = a,
                         .b = b,
                         .bias = p.bias,
                         .c = nullptr};
  if constexpr (std::is_same_v<Out, float>) {
    wide.c = p.c;
    multiply_float(wide);
  } else {
    float* const c = own.c.floats(p.m * p.n);
    if (p.accumulate) widen(p.c, c, p.m * p.n);
    wide.c = c;
    multiply_float(wide);
    for_pieces(p.m * p.n, [=](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) p.c[i] = bf16(c[i]);
    });
  }
}

void multiply_double(const CpuProduct<double>& p) {
  bias_only(p.m, p.n, p.bias, p.c, p.accumulate);
#pragma omp parallel for schedule(static) if (p.m * p.n * p.k >= kParallelElements)
  for (std::int64_t i = 0; i < p.m; ++i) {
    double* const row = p.c + i * p.n;
    for (std::int64_t l = 0; l < p.k; ++l) {
      const double x = p.transpose_a ? p.a[l * p.m + i] : p.a[i * p.k + l];
      if (p.transpose_b) {
        for (std::int64_t j = 0; j < p.n; ++j) row[j] += x * p.b[j * p.k + l];
      } else {
        for (std::int64_t j = 0; j < p.n; ++j) row[j] += x * p.b[l * p.n + j];
      }
    }
  }
}

}  // namespace

template <class T, class Out>
void multiply(const CpuProduct<T, Out>& product) {
  if (product.m == 0 || product.n == 0) return;
  if (product.k == 0) {
    return bias_only(product.m, product.n, product.bias, product.c, product.accumulate);
  }
  if constexpr (std::is_same_v<T, float>) multiply_float(product);
  if constexpr (std::is_same_v<T, double>) multiply_double(product);
  if constexpr (std::is_same_v<T, bf16>) multiply_bf16(product);
}

template <class Acc>
std::size_t PackedMatrix<Acc>::bytes(const PackedShape& shape) {
  if (shape.k == 0 || shape.n == 0) return 0;
  if constexpr (std::is_same_v<Acc, double>) {
    return static_cast<std::size_t>(shape.k * shape.n) * sizeof(double);
  } else {
    return workspace().packed_layout(shape).get_size();
  }
}

template <class Acc>
template <class T>
PackedMatrix<Acc>::PackedMatrix(const PackedShape& shape, const T* b, bool transpose, void* storage)
    : shape_(shape), storage_(storage) {
  if (shape.k == 0 || shape.n == 0) return;
  if constexpr (std::is_same_v<Acc, double>) {
    auto* const to = static_cast<double*>(storage);
    for (std::int64_t l = 0; l < shape.k; ++l) {
      for (std::int64_t j = 0; j < shape.n; ++j) {
        to[l * shape.n + j] = b[transpose ? j * shape.k + l : l * shape.n + j];
      }
    }
  } else {
    Workspace& own = workspace();
    const float* from = nullptr;
    if constexpr (std::is_same_v<T, bf16>) {
      float* const wide = own.b.floats(shape.k * shape.n);
      widen(b, wide, shape.k * shape.n);
      from = wide;
    } else {
      from = b;
    }
    const memory plain_b(plain(shape.k, shape.n, transpose), engine(), const_cast<float*>(from));
    const memory packed(own.packed_layout(shape), engine(), storage);
    dnnl::reorder(plain_b, packed)
        .execute(own.stream, {{DNNL_ARG_FROM, plain_b}, {DNNL_ARG_TO, packed}});
    packed_ = {packed.get(), [packed](dnnl_memory*) {}};  // the copy in the deleter owns the handle
  }
}

template <class Acc>
void PackedMatrix<Acc>::multiply(std::int64_t m, const Acc* a, Acc* c, bool accumulate) const {
  const auto [k, n, rows] = shape_;
  if (m == 0 || n == 0) return;
  if (k == 0) return bias_only(m, n, static_cast<const Acc*>(nullptr), c, accumulate);
  if constexpr (std::is_same_v<Acc, double>) {
    multiply_double({.accumulate = accumulate,
                     .m = m,
                     .n = n,
                     .k = k,
                     .a = a,
                     .b = static_cast<const double*>(storage_),
                     .c = c});
  } else {
    workspace().run({.m = m,
                     .n = n,
                     .k = k,
                     .packed_rows = rows,
                     .accumulate = accumulate,
                     .thread_count = threads()},
                    {.a = a, .packed_b = packed_.get(), .c = c});
  }
}

template void multiply(const CpuProduct<float>&);
template void multiply(const CpuProduct<double>&);
template void multiply(const CpuProduct<bf16>&);
template void multiply(const CpuProduct<bf16, float>&);
template class PackedMatrix<float>;
template class PackedMatrix<double>;
template PackedMatrix<float>::PackedMatrix(const PackedShape&, const float*, bool, void*);
template PackedMatrix<float>::PackedMatrix(const PackedShape&, const bf16*, bool, void*);
template PackedMatrix<double>::PackedMatrix(const PackedShape&, const double*, bool, void*);

}  // namespace carousel
