#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace carousel {

/// How many columns the terminal behind a descriptor has, $COLUMNS before what it says itself; 0 if
/// there is no terminal, where nothing is wrapped and nothing left out.
std::size_t terminal_width(int descriptor);

/// How many columns a text takes: one for each code point.
std::size_t columns_of(std::string_view text);

/// Breaks lines that are longer than `width` at blanks; 0: none. They go on under their second
/// column, which two blanks or more divide from the first, or else two blanks further in than they
/// begin. A word that is too long stays whole.
std::string wrapped(std::string_view text, std::size_t width);

/// A text of at most `width` columns, the last of which is … if it was longer.
std::string shortened(const std::string& text, std::size_t width);

struct TableColumn {
  std::string title;
  bool numbers = false;  ///< aligned on the right
  int rank = 0;  ///< of the columns that do not fit, those of the highest rank go first; 0 stays
};

/// Rows of cells under titled columns. Where they are wider than `width`, columns are left out and a
/// last line names them; if that is not enough, the first column is cut short. 0: as wide as it is.
/// Rows with fewer cells have empty ones; a row's cell beyond the columns is a remark at its end.
std::string table_text(const std::vector<TableColumn>& columns,
                       const std::vector<std::vector<std::string>>& rows, std::size_t width);

}  // namespace carousel
