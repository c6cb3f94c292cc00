#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>

namespace carousel {

/// Names what the host does during its lifetime (an op, a layer, a phase of training), for this
/// thread's Journal and, as an NVTX range, for a profiler's timeline. Ranges nest. Costs a few
/// nanoseconds without a journal and a profiler.
class Range {
 public:
  explicit Range(const char* name) noexcept;
  ~Range();
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

namespace detail {
/// "RecurrentSequenceForward<float>", taken from the compiler's name of this function.
template <class Op>
constexpr std::array<char, 128> op_name() {
  std::string_view rest = __PRETTY_FUNCTION__;  // … [with Op = carousel::Sample<carousel::bf16>]
  rest.remove_prefix(rest.find("Op") + 2);
  rest.remove_prefix(rest.find_first_not_of(" ="));
  rest = rest.substr(0, rest.find_first_of(";]"));
  constexpr std::string_view kNamespace = "carousel::";
  std::array<char, 128> name{};
  for (std::size_t to = 0; !rest.empty() && to + 1 < name.size();) {
    if (rest.substr(0, kNamespace.size()) == kNamespace) {
      rest.remove_prefix(kNamespace.size());
    } else {
      name[to++] = rest.front();
      rest.remove_prefix(1);
    }
  }
  return name;
}
}  // namespace detail

/// An op's type as a profiler shows it: "Fill<float>", "RecurrentSequenceForward<bf16>".
template <class Op>
inline constexpr std::array<char, 128> kOpName = detail::op_name<Op>();

}  // namespace carousel
