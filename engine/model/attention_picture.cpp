#include "engine/model/attention_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "engine/text/utf8.h"

namespace carousel {
namespace {

// In pixels. A letter is about so wide that labels have room for their code points.
constexpr double kCell = 22, kLetter = 8, kMargin = 12, kTitle = 24;

std::size_t longest(const std::vector<std::string>& labels) {
  std::size_t most = 1;
  for (const std::string& label : labels) {
    const std::string shown = escaped(label);
    most = std::max<std::size_t>(
        most, static_cast<std::size_t>(std::count_if(shown.begin(), shown.end(), [](char c) {
          return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
        })));
  }
  return most;
}

/// Where the parts of one picture lie.
struct Layout {
  double left, top, width, height;

  explicit Layout(const AttentionPicture& picture)
      : left(kMargin + kLetter * static_cast<double>(longest(picture.rows))),
        top(kTitle + kMargin + kLetter * static_cast<double>(longest(picture.columns))),
        width(std::max(left + kCell * static_cast<double>(picture.columns.size()),
                       kMargin + kLetter * static_cast<double>(picture.title.size())) +
              kMargin),
        height(top + kCell * static_cast<double>(picture.rows.size()) + kMargin) {}
};

/// White for 0, dark blue for 1.
std::string colour(double weight) {
  const auto mixed = [weight](double dark) { return std::lround(255 + weight * (dark - 255)); };
  return fmt::format("#{:02x}{:02x}{:02x}", mixed(8), mixed(48), mixed(107));
}

std::string panel(const AttentionPicture& picture, double y) {
  const Layout at(picture);
  std::string text =
      fmt::format("<g transform=\"translate(0 {:.0f})\">\n<text x=\"{}\" y=\"{}\">{}</text>\n", y,
                  kMargin, kTitle - 4, xml_text(picture.title));
  for (std::size_t j = 0; j < picture.columns.size(); ++j) {
    const double x = at.left + kCell * (static_cast<double>(j) + 0.7);
    text += fmt::format(
        "<text x=\"{0:.1f}\" y=\"{1:.1f}\" transform=\"rotate(-90 {0:.1f} {1:.1f})\">{2}</text>\n",
        x, at.top - 4, xml_text(escaped(picture.columns[j])));
  }
  for (std::size_t i = 0; i < picture.rows.size(); ++i) {
    const double row = at.top + kCell * static_cast<double>(i);
    text += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n",
                        at.left - 4, row + kCell * 0.7, xml_text(escaped(picture.rows[i])));
    for (std::size_t j = 0; j < picture.columns.size(); ++j) {
      const double weight = picture.weights[i * picture.columns.size() + j];
      text += fmt::format(
          "<rect x=\"{:.0f}\" y=\"{:.0f}\" width=\"{}\" height=\"{}\" fill=\"{}\"><title>{} → {}: "
          "{:.3f}</title></rect>\n",
          at.left + kCell * static_cast<double>(j), row, kCell, kCell, colour(weight),
          xml_text(escaped(picture.rows[i])), xml_text(escaped(picture.columns[j])), weight);
    }
  }
  return text + "</g>\n";
}

}  // namespace

std::string svg(std::span<const AttentionPicture> pictures) {
  double width = 0, height = 0;
  std::string panels;
  for (const AttentionPicture& picture : pictures) {
    const Layout at(picture);
    panels += panel(picture, height);
    width = std::max(width, at.width);
    height += at.height;
  }
  return fmt::format(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
             "width=\"{0:.0f}\" height=\"{1:.0f}\" font-family=\"sans-serif\" font-size=\"13\">\n"
             "<rect width=\"{0:.0f}\" height=\"{1:.0f}\" fill=\"white\"/>\n",
             width, height) +
         panels + "</svg>\n";
}

std::string html(std::span<const AttentionPicture> pictures, const std::string& title) {
  std::string list, body;
  for (std::size_t i = 0; i < pictures.size(); ++i) {
    list += fmt::format("<a href=\"#p{}\">{}</a>\n", i, xml_text(pictures[i].title));
    body += fmt::format("<section id=\"p{}\">\n{}</section>\n", i, svg(pictures.subspan(i, 1)));
  }
  return fmt::format(
      "<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n<title>{0}</title>\n"
      "<style>body {{ font-family: sans-serif }} nav a {{ margin-right: 1em }} "
      "section {{ display: inline-block; vertical-align: top }}</style>\n</head>\n<body>\n"
      "<h1>{0}</h1>\n<nav>\n{1}</nav>\n{2}</body>\n</html>\n",
      xml_text(title), list, body);
}

}  // namespace carousel
