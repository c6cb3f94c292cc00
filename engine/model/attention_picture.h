#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace carousel {

/// A heat map of the weights of one head.
struct AttentionPicture {
  std::string title;                       ///< "layer 0, head 1"
  std::vector<std::string> rows, columns;  ///< tokens: those that ask, those that answer
  std::vector<float> weights;              ///< [rows, columns], each from 0 to 1
};

/// The pictures below one another as one SVG image: darker cells have more weight, and each tells its
/// own when pointed at.
std::string svg(std::span<const AttentionPicture> pictures);

/// The same as a page that needs nothing else, with a list of the pictures to go to.
std::string html(std::span<const AttentionPicture> pictures, const std::string& title);

}  // namespace carousel
