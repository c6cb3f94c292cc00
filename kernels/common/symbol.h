#pragma once

#include <cxxabi.h>

#include <cstdlib>
#include <string>
#include <string_view>

namespace carousel {

/// A function as a reader would call it, of what the linker calls it: "fill_kernel<float>", without
/// result, parameters, and the namespaces that hold all of the project.
inline std::string readable_symbol(const char* mangled) {
  int status = 0;
  char* const plain = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  std::string name = status == 0 ? plain : mangled;
  std::free(plain);
  for (const std::string_view noise : {"(anonymous namespace)::", "carousel::"}) {
    for (auto i = name.find(noise); i != std::string::npos; i = name.find(noise)) {
      name.erase(i, noise.size());
    }
  }
  int depth = 0;
  for (std::size_t i = 0; i < name.size(); ++i) {
    depth += name[i] == '<' ? 1 : name[i] == '>' ? -1 : 0;
    if (depth == 0 && name[i] == '(') name.resize(i);
  }
  return name.starts_with("void ") ? name.substr(5) : name;
}

}  // namespace carousel
