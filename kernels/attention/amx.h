#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/cpu_product.h"

// The matrix registers of x86's AMX: eight of 16 rows of 64 bytes. They are named in assembly, so that
// the code is there whatever processor the compiler was told of; available() says whether it may run.
//
// Source   Intel, Architecture Instruction Set Extensions Programming Reference (319433), chapter 3.
namespace carousel::amx {

inline constexpr std::int64_t kRows = 16;   ///< of a register
inline constexpr std::int64_t kDepth = 32;  ///< bf16 factors of one of its rows
inline constexpr std::int64_t kBlock = 2 * kRows;

/// Whether this processor multiplies bf16 by AMX, this process may, and oneDNN does.
inline bool available() {
  static const bool result = [] {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl's
    return multiplies_bf16() && __builtin_cpu_supports("amx-bf16") != 0 &&
           syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return result;
}

/// Makes the calling thread's registers ready, while it lives. oneDNN's products, which set them up
/// for themselves, must not come in between.
class Registers {
 public:
  Registers() {
    struct alignas(64) Layout {
      std::uint8_t palette = 1, first_row = 0, reserved[14] = {};
      std::array<std::uint16_t, 16> row_bytes{};
      std::array<std::uint8_t, 16> rows{};
    };
    static_assert(sizeof(Layout) == 64);
    Layout layout;
    for (std::size_t i = 0; i < 8; ++i) layout.row_bytes[i] = 64, layout.rows[i] = kRows;
    asm volatile("ldtilecfg %0" ::"m"(layout));
  }
  ~Registers() { asm volatile("tilerelease"); }
  Registers(const Registers&) = delete;
  Registers& operator=(const Registers&) = delete;
};

template <int kRegister>
void clear() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kRegister));
}
/// Rows `stride` bytes apart.
template <int kRegister>
void load(const void* from, std::int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kRegister) : "memory");
}
template <int kRegister>
void store(void* to, std::int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kRegister) : "memory");
}
/// c[i][j] += Σ_k a[i][k]·b[k / 2][j][k mod 2]
template <int kC, int kA, int kB>
void add_product() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA), "i"(kB));
}

/// c (+)= a·b of kBlock rows and columns. `depth` is a multiple of kDepth; strides are in elements;
/// an element of b is two factors, that of the smaller depth in the low half.
inline void multiply(const bf16* a, std::int64_t a_stride, const std::uint32_t* b,
                     std::int64_t b_stride, std::int64_t depth, float* c, std::int64_t c_stride,
                     bool accumulate) {
  const std::int64_t a_row = a_stride * 2, b_row = b_stride * 4, c_row = c_stride * 4;
  if (accumulate) {
    load<0>(c, c_row), load<1>(c + kRows, c_row);
    load<2>(c + kRows * c_stride, c_row), load<3>(c + kRows * c_stride + kRows, c_row);
  } else {
    clear<0>(), clear<1>(), clear<2>(), clear<3>();
  }
  for (std::int64_t k = 0; k < depth; k += kDepth) {
    const std::uint32_t* const rows = b + k / 2 * b_stride;
    load<4>(a + k, a_row), load<5>(a + kRows * a_stride + k, a_row);
    load<6>(rows, b_row), load<7>(rows + kRows, b_row);
    add_product<0, 4, 6>(), add_product<1, 4, 7>();
    add_product<2, 5, 6>(), add_product<3, 5, 7>();
  }
  store<0>(c, c_row), store<1>(c + kRows, c_row);
  store<2>(c + kRows * c_stride, c_row), store<3>(c + kRows * c_stride + kRows, c_row);
}

}  // namespace carousel::amx
