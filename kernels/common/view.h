#pragma once

#include <array>
#include <cstdint>
#include <type_traits>

namespace carousel {

/// A typed window on contiguous memory, slowest dimension first. It borrows: a view is passed to
/// an op and never stored beyond the call. `View<const T, R>` is an input, `View<T, R>` an output.
/// A default-constructed view is an absent optional argument.
template <class T, int Rank>
struct View {
  T* data = nullptr;
  std::array<std::int64_t, Rank> extent{};

  constexpr View() = default;
  constexpr View(T* first, std::array<std::int64_t, Rank> extents) : data(first), extent(extents) {}

  /// Writable to read-only. A constructor, not a conversion operator: nvcc 13 warns about the
  /// operator when T is const already.
  template <class U>
  requires(std::is_const_v<T>&& std::is_same_v<const U, T>) constexpr View(
      const View<U, Rank>& other)
      : data(other.data), extent(other.extent) {}

  constexpr bool present() const { return data != nullptr; }

  constexpr std::int64_t size() const {
    std::int64_t product = 1;
    for (int i = 0; i < Rank; ++i) product *= extent[static_cast<std::size_t>(i)];
    return product;
  }

  /// The element at (i, j, …); as many indices as dimensions. Not checked.
  template <class... Index>
  requires(sizeof...(Index) == Rank) constexpr T& operator()(Index... index) const {
    std::int64_t offset = 0;
    int dimension = 0;
    ((offset = offset * extent[static_cast<std::size_t>(dimension++)] +
               static_cast<std::int64_t>(index)),
     ...);
    return data[offset];
  }
};

/// Where a backward pass writes a gradient: it overwrites the elements or, if `accumulate`, adds to
/// them. A default-constructed one is absent: the caller does not need this gradient.
template <class T, int Rank>
struct Gradient {
  View<T, Rank> view{};
  bool accumulate = false;

  constexpr bool present() const { return view.present(); }
};

}  // namespace carousel
