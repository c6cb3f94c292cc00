#pragma once

#include <cstddef>
#include <vector>

namespace carousel::reference {

/// A row's ring of places: position s of its text lies in place s mod C, and later ones take the place
/// of those before.
struct Ring {
  std::vector<double> places;
  long position;

  void store(double value) { places[static_cast<std::size_t>(position++) % places.size()] = value; }
};

}  // namespace carousel::reference
