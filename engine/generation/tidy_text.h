#pragma once

#include <string>
#include <string_view>

namespace carousel {

/// Sets a text of words and single blanks as people write it, piece by piece:
///   - no blank before a word of closing marks alone (. , ; : ! ? … % ) ] } ” ’), before 's 're 've 'll
///     'd 'm 't n't, and after a word of opening marks alone ( ( [ { “ ‘ );
///   - WikiText's @-@ @,@ @.@ are the mark between, without blanks around it;
///   - a capital where the text, a line or a sentence begins: a sentence ends with . ! ? … and closing
///     marks after these, so that an abbreviation ends one too.
/// Straight quotation marks, which open and close alike, keep their blanks, and <unk> stays as it is.
class TidyText {
 public:
  /// What may be shown with this piece: all but the last word, which may not be complete.
  std::string next(std::string_view piece);
  /// What was held back. The text may go on.
  std::string finish();
  /// Reads what is shown already, as a prompt is: the text goes on behind it.
  void read(std::string_view text);

 private:
  std::string take_word();
  std::string word_, blanks_;  ///< the word that is being read, and what stands before it
  bool sentence_begins_ = true, joins_ = false;
};

}  // namespace carousel
