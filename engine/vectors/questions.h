#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace carousel {

/// Two words and how similar people found them.
struct ScoredPair {
  std::string a, b;
  double score = 0;
};

/// Reads a file with a line "<word> <word> <score>" for each pair: WordSim-353, SimLex-999's columns,
/// MEN. A line is cut at its tabs if it has any, else at its commas, else at its blanks. The first line
/// may name the columns, which is one whose third field is no number; empty lines and those that begin
/// with # are left out. FormatError, with the line, for any other line, and for a file without pairs.
std::vector<ScoredPair> read_scored_pairs(const std::filesystem::path& file);

/// Questions of one kind: a is to b as c is to which?
struct AnalogySection {
  std::string name;
  std::vector<std::array<std::string, 4>> questions;  ///< a b c, and the answer
};

/// Reads a file in the format of word2vec's questions-words.txt: lines ": section", and behind each
/// lines of four words. FormatError, with the line, for any other line, a question before the first
/// section, and a file without questions.
std::vector<AnalogySection> read_analogies(const std::filesystem::path& file);

}  // namespace carousel
