#include <cxxabi.h>
#include <elf.h>
#include <fmt/format.h>
#include <link.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string_view>
#include <vector>

#include "tests/emulation/kernel.h"

namespace emulation {
namespace {

int executable_base(dl_phdr_info* info, std::size_t, void* base) {
  *static_cast<std::uintptr_t*>(base) = info->dlpi_addr;
  return 1;  // the executable comes first
}

template <class T>
const T* at(const std::vector<char>& file, std::size_t offset) {
  return reinterpret_cast<const T*>(file.data() + offset);
}

/// "void space::(anonymous namespace)::kernel<float>(Op)" becomes "space::kernel<float>".
std::string without_signature(std::string name) {
  const std::string_view noise = "(anonymous namespace)::";
  for (auto i = name.find(noise); i != std::string::npos; i = name.find(noise)) {
    name.erase(i, noise.size());
  }
  name.erase(std::min(name.find('('), name.size()));
  return name.starts_with("void ") ? name.substr(5) : name;
}

}  // namespace

// Read from the executable's own symbol table: kernels are local symbols, of which the dynamic
// linker knows nothing. Only a kernel that failed is looked up.
std::string symbol_name(const void* address) {
  std::uintptr_t base = 0;
  dl_iterate_phdr(executable_base, &base);
  const auto wanted = reinterpret_cast<std::uintptr_t>(address) - base;
  std::ifstream stream("/proc/self/exe", std::ios::binary);
  const std::vector<char> file{std::istreambuf_iterator<char>(stream), {}};
  if (file.size() < sizeof(Elf64_Ehdr)) return fmt::format("kernel at {}", address);
  const auto* header = at<Elf64_Ehdr>(file, 0);
  const auto* sections = at<Elf64_Shdr>(file, header->e_shoff);
  for (std::size_t s = 0; s < header->e_shnum; ++s) {
    if (sections[s].sh_type != SHT_SYMTAB) continue;
    const auto* symbols = at<Elf64_Sym>(file, sections[s].sh_offset);
    const char* names = at<char>(file, sections[sections[s].sh_link].sh_offset);
    for (std::size_t i = 0; i < sections[s].sh_size / sizeof(Elf64_Sym); ++i) {
      if (symbols[i].st_value != wanted || ELF64_ST_TYPE(symbols[i].st_info) != STT_FUNC) continue;
      int status = 0;
      char* plain = abi::__cxa_demangle(names + symbols[i].st_name, nullptr, nullptr, &status);
      const std::string name = status == 0 ? plain : names + symbols[i].st_name;
      std::free(plain);
      return without_signature(name);
    }
  }
  return fmt::format("kernel at {}", address);
}

}  // namespace emulation
