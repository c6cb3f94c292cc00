#include "kernels/common/onednn.h"

#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "kernels/common/journal.h"

namespace carousel::onednn {

using dnnl::memory;

const dnnl::engine& engine() {
  static const dnnl::engine cpu(dnnl::engine::kind::cpu, 0);
  return cpu;
}

int threads() {
  if (omp_in_parallel()) return 1;
  // oneDNN divides its work among as many threads as OpenMP reports. If OMP_THREAD_LIMIT or
  // OMP_DYNAMIC lets fewer start, the work of the others is never done. So OpenMP must report what
  // it can start.
  omp_set_dynamic(0);
  if (omp_get_max_threads() > omp_get_thread_limit()) omp_set_num_threads(omp_get_thread_limit());
  return omp_get_max_threads();
}

std::string description() {
  const int used = threads(), cores = omp_get_num_procs();
  const dnnl_version_t* const version = dnnl_version();
  std::string text = fmt::format("cpu, {} thread{}", used, used == 1 ? "" : "s");
  if (used < cores) text += fmt::format(" (of {} cores)", cores);
  text += fmt::format("; oneDNN {}.{}.{}", version->major, version->minor, version->patch);
  for (const char* const limit : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}) {
    if (const char* const value = std::getenv(limit)) {
      text += fmt::format(", limited by {}={}", limit, value);
    }
  }
  return text;
}

memory::desc plain(std::int64_t rows, std::int64_t columns, bool transposed, std::int64_t row,
                   memory::data_type type) {
  if (row == 0) row = transposed ? rows : columns;
  const memory::dims strides{transposed ? 1 : row, transposed ? row : 1};
  return {{rows, columns}, type, strides};
}

memory::desc packed_layout(const PackedShape& shape, memory::data_type type) {
  static std::mutex mutex;
  static std::map<std::array<std::int64_t, 4>, memory::desc> known;
  const std::lock_guard lock(mutex);
  const std::array<std::int64_t, 4> key{shape.k, shape.n, shape.rows,
                                        static_cast<std::int64_t>(type)};
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  const std::int64_t rows = std::max<std::int64_t>(shape.rows, 1);
  const memory::desc b({shape.k, shape.n}, type, memory::format_tag::any);
  const dnnl::matmul::primitive_desc product(
      {plain(rows, shape.k, false, 0, type), b, plain(rows, shape.n, false)}, engine());
  return known.emplace(key, product.weights_desc()).first->second;
}

CompiledProduct::CompiledProduct(const ProductKey& key) {
  const memory::desc a = plain(key.m, key.k, key.transpose_a, key.row_of_a, key.type);
  const memory::desc b =
      key.packed_rows < 0
          ? plain(key.k, key.n, key.transpose_b, key.row_of_b, key.type)
          : packed_layout({.k = key.k, .n = key.n, .rows = key.packed_rows}, key.type);
  const memory::desc c = plain(key.m, key.n, false, key.row_of_c, key.result);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (key.accumulate) {
    dnnl::post_ops sum;
    sum.append_sum();
    attributes.set_post_ops(sum);
  }
  const auto descriptor = key.bias ? dnnl::matmul::primitive_desc({a, b, plain(1, key.n, false), c},
                                                                  attributes, engine())
                                   : dnnl::matmul::primitive_desc({a, b, c}, attributes, engine());
  scratch_bytes_ = descriptor.scratchpad_desc().get_size();
  algorithm_ = descriptor.impl_info_str();
  product_ = dnnl::matmul(descriptor);
  add(DNNL_ARG_SRC, a);
  add(DNNL_ARG_WEIGHTS, b);
  add(DNNL_ARG_DST, c);
  add(DNNL_ARG_SCRATCHPAD, descriptor.scratchpad_desc());
  if (key.bias) add(DNNL_ARG_BIAS, plain(1, key.n, false));
}

void CompiledProduct::run(const dnnl::stream& stream, Scratch& scratch, const Operands& x) {
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

void CompiledProduct::add(int name, const memory::desc& layout) {
  names_[count_] = name;
  operands_[count_++] = memory(layout, engine(), nullptr);
}

Workspace& Workspace::mine() {
  thread_local Workspace workspace;
  return workspace;
}

void Workspace::run(const ProductKey& key, const Operands& operands) {
  constexpr std::size_t kMost = 512;  // shapes; with more of them, compiling again costs little
  auto found = compiled_.find(key);
  if (found == compiled_.end()) {
    if (compiled_.size() >= kMost) compiled_.clear();
    found = compiled_.emplace(key, CompiledProduct(key)).first;
  }
  if (Journal* const journal = Journal::mine()) {
    const bool narrow = key.type == memory::data_type::bf16;
    const ProductNote product{.type = narrow ? "bf16" : "f32",
                              .transpose_a = key.transpose_a,
                              .transpose_b = key.transpose_b,
                              .accumulate = key.accumulate,
                              .bias = key.bias,
                              .m = key.m,
                              .n = key.n,
                              .k = key.k};
    journal->note(fmt::format("{}: oneDNN, compiled for the shape{} ({})", product.text(),
                              key.packed_rows < 0 ? "" : ", B packed", found->second.algorithm()));
  }
  found->second.run(stream, scratch_, operands);
}

}  // namespace carousel::onednn
