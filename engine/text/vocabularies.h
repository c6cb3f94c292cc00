#pragma once

#include <map>
#include <string>

#include "engine/files/safetensors.h"
#include "engine/text/vocabulary.h"

namespace carousel {

/// The vocabularies of a corpus by their roles: "token" for what is read, "label" for classes.
class Vocabularies {
 public:
  void add(const std::string& role, Vocabulary vocabulary);
  bool contains(const std::string& role) const { return by_role_.contains(role); }
  /// ConfigError that lists the roles there are if there is none for this one.
  const Vocabulary& operator[](const std::string& role) const;
  const std::map<std::string, Vocabulary>& by_role() const { return by_role_; }

  /// As a checkpoint keeps them: role "token" under "carousel.vocabulary", any other role under
  /// "carousel.vocabulary.<role>".
  void write(Metadata& metadata) const;
  /// The inverse of write(). FormatError, with the name of the file, for an invalid vocabulary.
  static Vocabularies read(const Metadata& metadata, const std::string& file);

  /// Compares the vocabularies whose roles are also in `expected`. FormatError that begins with
  /// `name` and tells the first difference unless they hold the same tokens in the same order
  /// and cut texts alike; their counts may differ.
  void expect_same_tokens(const Vocabularies& expected, const std::string& name) const;

 private:
  std::map<std::string, Vocabulary> by_role_;
};

}  // namespace carousel
