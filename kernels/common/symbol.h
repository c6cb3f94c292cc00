#pragma once

#include <cxxabi.h>

#include <cstdlib>
#include <string>
#include <string_view>

namespace carousel {

/// The readable name of a mangled function name: "fill_kernel<float>", without result type,
/// parameters, and the namespaces that contain the whole project.
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
