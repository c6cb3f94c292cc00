#include <elf.h>
#include <fmt/format.h>
#include <link.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <vector>

#include "kernels/common/symbol.h"
#include "tests/emulation/language/kernel.h"

namespace emulation {
namespace {

int executable_base(dl_phdr_info* info, std::size_t, void* base) {
  *static_cast<std::uintptr_t*>(base) = info->dlpi_addr;
  return 1;  // stop: the executable comes first
}

template <class T>
const T* at(const std::vector<char>& file, std::size_t offset) {
  return reinterpret_cast<const T*>(file.data() + offset);
}

// Reads the executable's own symbol table: kernels are local symbols, which dladdr() does not find.
std::string look_up(const void* address) {
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
      return names + symbols[i].st_name;
    }
  }
  return fmt::format("kernel at {}", address);
}

}  // namespace

const std::string& mangled_name(const void* address) {
  static std::mutex mutex;
  static auto& known = *new std::map<const void*, std::string>;
  const std::lock_guard lock(mutex);
  const auto found = known.find(address);
  return found != known.end() ? found->second
                              : known.emplace(address, look_up(address)).first->second;
}

std::string symbol_name(const void* address) {
  return carousel::readable_symbol(mangled_name(address).c_str());
}

}  // namespace emulation
