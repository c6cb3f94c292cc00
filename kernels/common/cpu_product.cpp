#include "kernels/common/cpu_product.h"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "kernels/common/cpu_few_rows.h"
#include "kernels/common/journal.h"
#include "kernels/common/onednn.h"

namespace carousel {
namespace {

using dnnl::memory;
using onednn::Workspace;

constexpr std::int64_t kParallelElements = 32 * 1024;  // below this a second thread costs more

/// Calls f(first, last) on pieces of [0, count), on several threads if there is enough to do.
template <class F>
void for_pieces(std::int64_t count, const F& f) {
  constexpr std::int64_t kPiece = 8 * 1024;
  if (count < kParallelElements) return f(std::int64_t{0}, count);  // a region of one costs, too
#pragma omp parallel for schedule(static)
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

/// The result of a product with k = 0: an empty sum.
template <class Acc, class Out>
void bias_only(std::int64_t m, std::int64_t n, const Acc* bias, Out* c, std::int64_t row_of_c,
               bool accumulate) {
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < n; ++j) {
      Out& out = c[i * row_of_c + j];
      const Acc sum = accumulate ? static_cast<Acc>(out) : Acc{0};
      out = static_cast<Out>(bias == nullptr ? sum : sum + bias[j]);
    }
  }
}

template <class T, class Out>
void note(const CpuProduct<T, Out>& p, const char* algorithm) {
  Journal* const journal = Journal::mine();
  if (journal == nullptr) return;
  const ProductNote product{.type = std::is_same_v<T, bf16> ? "bf16" : "f32",
                            .transpose_a = p.transpose_a,
                            .transpose_b = p.transpose_b,
                            .accumulate = p.accumulate,
                            .bias = p.bias != nullptr,
                            .m = p.m,
                            .n = p.n,
                            .k = p.k};
  journal->note(fmt::format("{}: {}", product.text(), algorithm));
}

template <class Out>
void multiply_few_rows(const CpuProduct<bf16, Out>& p) {
  note(p, "loops for few rows");
  float* const a = Workspace::mine().a.floats(p.m * few_rows::padded(p.k));
  few_rows::widen_rows(p.a, p.row_of_a(), p.m, p.k, a);
#pragma omp parallel for schedule(static) if (p.n * p.k > kParallelElements)
  for (std::int64_t first = 0; first < p.n; first += few_rows::kPiece) {
    few_rows::multiply_columns(p, a, first, std::min(first + few_rows::kPiece, p.n));
  }
}

/// Chooses between two functions of oneDNN, as measured (Zen 5, two threads). sgemm needs no
/// compiled primitive: it is up to 2× faster for tiny m and 10 % faster for large untransposed
/// products. The compiled primitive adds the bias while it writes C; it is up to 2.8× faster for
/// the product of a transposed operand and a narrow one.
bool compile_pays(const CpuProduct<float>& p) {
  constexpr std::int64_t kNarrow = 256, kTiny = 8;
  if (p.m <= kTiny) return false;
  if (p.bias != nullptr) return true;
  return (p.transpose_b && std::min(p.m, p.n) <= kNarrow) || (p.transpose_a && p.n <= kNarrow);
}

template <class T>
constexpr memory::data_type kType =
    std::is_same_v<T, bf16> ? memory::data_type::bf16 : memory::data_type::f32;

/// By a product that oneDNN compiles for the shape and the types.
template <class T, class Out>
void multiply_as_stored(const CpuProduct<T, Out>& p) {
  Workspace::mine().run({.type = kType<T>,
                         .result = kType<Out>,
                         .m = p.m,
                         .n = p.n,
                         .k = p.k,
                         .row_of_a = p.row_of_a(),
                         .row_of_b = p.row_of_b(),
                         .row_of_c = p.row_of_c(),
                         .transpose_a = p.transpose_a,
                         .transpose_b = p.transpose_b,
                         .accumulate = p.accumulate,
                         .bias = p.bias != nullptr,
                         .thread_count = onednn::threads()},
                        {.a = p.a, .b = p.b, .bias = p.bias, .c = p.c});
}

void multiply_float(const CpuProduct<float>& p) {
  if (compile_pays(p)) {
    return multiply_as_stored(p);
  }
  note(p, "oneDNN sgemm");
  const bool adds = p.accumulate || p.bias != nullptr;
  if (p.bias != nullptr) bias_only(p.m, p.n, p.bias, p.c, p.row_of_c(), p.accumulate);
  dnnl::error::wrap_c_api(
      dnnl_sgemm(p.transpose_a ? 'T' : 'N', p.transpose_b ? 'T' : 'N', p.m, p.n, p.k, 1.0F, p.a,
                 p.row_of_a(), p.b, p.row_of_b(), adds ? 1.0F : 0.0F, p.c, p.row_of_c()),
      "oneDNN could not run a product");
}

/// Calls f(from, to, count) for all rows of a matrix and its contiguous copy.
template <class From, class To, class F>
void for_matrix(From* from, std::int64_t row, To* to, std::int64_t rows, std::int64_t columns,
                const F& f) {
  if (row == columns) return f(from, to, rows * columns);
  for (std::int64_t i = 0; i < rows; ++i) f(from + i * row, to + i * columns, columns);
}

/// Sums of 63 terms by AMX, divided among threads, are wrong or end in an illegal instruction with
/// oneDNN 2.6: a thread's tiles have another shape than its code. Kept from it are all lengths that
/// leave 31 of 32, as 63 does.
bool takes_bf16(std::int64_t k) { return multiplies_bf16() && k % 32 != 31; }

template <class Out>
void multiply_bf16(const CpuProduct<bf16, Out>& p) {
  if (p.m <= few_rows::kMost && p.transpose_b && !p.transpose_a) return multiply_few_rows(p);
  if (takes_bf16(p.k)) {
    return multiply_as_stored(p);
  }
  Workspace& own = Workspace::mine();
  float* const a = own.a.floats(p.m * p.k);
  float* const b = own.b.floats(p.k * p.n);
  for_matrix(p.a, p.row_of_a(), a, p.transpose_a ? p.k : p.m, p.a_columns(), widen);
  for_matrix(p.b, p.row_of_b(), b, p.transpose_b ? p.n : p.k, p.b_columns(), widen);
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
    wide.c = p.c, wide.c_stride = p.c_stride;
    multiply_float(wide);
  } else {
    float* const c = own.c.floats(p.m * p.n);
    if (p.accumulate) for_matrix(p.c, p.row_of_c(), c, p.m, p.n, widen);
    wide.c = c;
    multiply_float(wide);
    for_matrix(p.c, p.row_of_c(), c, p.m, p.n, [](bf16* to, const float* from, std::int64_t count) {
      for_pieces(count, [=](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i) to[i] = bf16(from[i]);
      });
    });
  }
}

void multiply_double(const CpuProduct<double>& p) {
  bias_only(p.m, p.n, p.bias, p.c, p.row_of_c(), p.accumulate);
#pragma omp parallel for schedule(static) if (p.m * p.n * p.k >= kParallelElements)
  for (std::int64_t i = 0; i < p.m; ++i) {
    double* const row = p.c + i * p.row_of_c();
    for (std::int64_t l = 0; l < p.k; ++l) {
      const double x = p.a[p.transpose_a ? l * p.row_of_a() + i : i * p.row_of_a() + l];
      if (p.transpose_b) {
        for (std::int64_t j = 0; j < p.n; ++j) row[j] += x * p.b[j * p.row_of_b() + l];
      } else {
        for (std::int64_t j = 0; j < p.n; ++j) row[j] += x * p.b[l * p.row_of_b() + j];
      }
    }
  }
}

}  // namespace

bool multiplies_bf16() {
  static const bool faster = [] {
    const auto usable = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
    const auto can = [usable](dnnl::cpu_isa isa) {  // an isa's value has a bit for each feature
      return (usable & static_cast<unsigned>(isa)) == static_cast<unsigned>(isa);
    };
    return can(__builtin_cpu_is("amd") ? dnnl::cpu_isa::avx512_core_bf16
                                       : dnnl::cpu_isa::avx512_core_amx);
  }();
  return faster;
}

template <class T, class Out>
void multiply(const CpuProduct<T, Out>& product) {
  if (product.m == 0 || product.n == 0) return;
  if (product.k == 0) {
    return bias_only(product.m, product.n, product.bias, product.c, product.row_of_c(),
                     product.accumulate);
  }
  if constexpr (std::is_same_v<T, float>) multiply_float(product);
  if constexpr (std::is_same_v<T, double>) multiply_double(product);
  if constexpr (std::is_same_v<T, bf16>) multiply_bf16(product);
}

namespace {
/// double has no packed layout, and oneDNN's products with one do not step over gaps.
template <class Stored>
bool stays_plain(const PackedShape& shape) {
  return std::is_same_v<Stored, double> || shape.has_gaps();
}

/// Calls f with a null pointer to the type in which T is packed: bf16 may have to be widened.
template <class T, class F>
auto with_stored_type(const PackedShape& shape, const F& f) {
  if constexpr (std::is_same_v<T, bf16>) {
    if (!takes_bf16(shape.k)) return f(static_cast<float*>(nullptr));
  }
  return f(static_cast<T*>(nullptr));
}
}  // namespace

template <class T>
std::size_t PackedMatrix<T>::bytes(const PackedShape& shape) {
  if (shape.k == 0 || shape.n == 0) return 0;
  return with_stored_type<T>(shape, [&]<class Stored>(Stored*) -> std::size_t {
    if (stays_plain<Stored>(shape)) {
      return static_cast<std::size_t>(shape.k * shape.n) * sizeof(Stored);
    }
    return onednn::packed_layout(shape, kType<Stored>).get_size();
  });
}

template <class T>
PackedMatrix<T>::PackedMatrix(const PackedShape& shape, const T* b, bool transpose, void* storage)
    : shape_(shape), storage_(storage) {
  if (shape.k == 0 || shape.n == 0) return;
  with_stored_type<T>(shape, [&]<class Stored>(Stored*) { pack<Stored>(b, transpose, storage); });
}

template <class T>
template <class Stored>
void PackedMatrix<T>::pack(const T* b, bool transpose, void* storage) {
  const std::int64_t k = shape_.k, n = shape_.n;
  if (stays_plain<Stored>(shape_)) {
    auto* const to = static_cast<Stored*>(storage);
    for (std::int64_t l = 0; l < k; ++l) {
      for (std::int64_t j = 0; j < n; ++j) {
        to[l * n + j] = static_cast<Stored>(b[transpose ? j * k + l : l * n + j]);
      }
    }
    return;
  }
  if constexpr (!std::is_same_v<Stored, double>) {
    Workspace& own = Workspace::mine();
    const void* from = b;
    if constexpr (!std::is_same_v<Stored, T>) {
      float* const wide = own.b.floats(k * n);
      widen(b, wide, k * n);
      from = wide;
    }
    const memory plain_b(onednn::plain(k, n, transpose, 0, kType<Stored>), onednn::engine(),
                         const_cast<void*>(from));
    const memory packed(onednn::packed_layout(shape_, kType<Stored>), onednn::engine(), storage);
    dnnl::reorder(plain_b, packed)
        .execute(own.stream, {{DNNL_ARG_FROM, plain_b}, {DNNL_ARG_TO, packed}});
    packed_ = {packed.get(), [packed](dnnl_memory*) {}};  // the copy in the deleter owns the handle
  }
}

template <class T>
void PackedMatrix<T>::multiply(std::int64_t m, const T* a, Accumulator<T>* c,
                               bool accumulate) const {
  with_stored_type<T>(shape_, [&]<class Stored>(Stored*) {
    if constexpr (std::is_same_v<Stored, T>) {
      multiply_stored(m, a, shape_.row_of_a(), c, accumulate);
    } else {
      float* const wide = Workspace::mine().a.floats(m * shape_.k);
      for_matrix(a, shape_.row_of_a(), wide, m, shape_.k, widen);
      multiply_stored<float>(m, wide, shape_.k, c, accumulate);
    }
  });
}

template <class T>
template <class Stored>
void PackedMatrix<T>::multiply_stored(std::int64_t m, const Stored* a, std::int64_t row_of_a,
                                      Accumulator<T>* c, bool accumulate) const {
  if (packed_ == nullptr) {
    return carousel::multiply(
        CpuProduct<Stored, Accumulator<T>>{.accumulate = accumulate,
                                           .m = m,
                                           .n = shape_.n,
                                           .k = shape_.k,
                                           .a = a,
                                           .a_stride = row_of_a,
                                           .b = static_cast<const Stored*>(storage_),
                                           .c = c,
                                           .c_stride = shape_.row_of_c()});
  }
  if (m == 0) return;
  if constexpr (!std::is_same_v<Stored, double>) {
    Workspace::mine().run({.type = kType<Stored>,
                           .m = m,
                           .n = shape_.n,
                           .k = shape_.k,
                           .row_of_a = row_of_a,
                           .row_of_b = shape_.n,
                           .row_of_c = shape_.n,
                           .packed_rows = shape_.rows,
                           .accumulate = accumulate,
                           .thread_count = onednn::threads()},
                          {.a = a, .packed_b = packed_.get(), .c = c});
  }
}

template void multiply(const CpuProduct<float>&);
template void multiply(const CpuProduct<double>&);
template void multiply(const CpuProduct<bf16>&);
template void multiply(const CpuProduct<bf16, float>&);
template class PackedMatrix<float>;
template class PackedMatrix<double>;
template class PackedMatrix<bf16>;

}  // namespace carousel
