#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "engine/config/options.h"
#include "engine/data/corpus.h"
#include "engine/text/vocabulary_counter.h"

namespace carousel {

/// The options of one kind of data, section [data] of a config, and the corpora made with them.
/// What is made of files is kept in the folder `cache`, if there is one, and read from there the
/// next time.
class DataConfig {
 public:
  virtual ~DataConfig() = default;
  std::filesystem::path vocabulary_from;  ///< a run's or a file, instead of counting; may be empty
  virtual void describe(OptionSection& section) = 0;
  /// Sets the options that follow from others unless they are given.
  virtual void complete() {}
  virtual bool lines() const = 0;  ///< the corpora are lines, not a stream
  /// What the options say to train on and to validate on. The vocabularies are those that are given
  /// for their roles; others are counted in the training data.
  virtual Corpus open(const std::string& cache, const Vocabularies& given = {}) const = 0;
  /// Another text of this kind, with the vocabularies of training: all of it is in `validation`.
  virtual Corpus evaluation(const Text& text, const Vocabularies& vocabularies,
                            const std::string& cache) const = 0;
  /// The same for predictions: the text has what a model reads, without the answers.
  virtual Corpus inputs(const Text& text, const Vocabularies& vocabularies,
                        const std::string& cache) const {
    return evaluation(text, vocabularies, cache);
  }
  /// Says which tokens the options mark: document_end, answer_after. ConfigError if one is no token
  /// of `name`, a text with these vocabularies.
  virtual void mark(Corpus& /*corpus*/, const Vocabularies&, const std::string& /*name*/) const {}
};

struct DataKind {
  const char* kind;                      ///< data.kind in a config
  const char* description;               ///< one line
  std::span<const char* const> columns;  ///< what its corpora have
  std::unique_ptr<DataConfig> (*config)();
};

/// Every kind of data there is, sorted by kind.
std::span<const DataKind> data_kinds();

/// ConfigError, with the nearest there is, for an unknown kind.
const DataKind& data_kind(const std::string& kind);

/// ConfigError that names the kinds which would do unless the kind has all columns that `reader`
/// ("model.kind = classifier") reads.
void expect_columns(const DataKind& kind, std::span<const char* const> wanted,
                    const std::string& reader);

/// What all kinds of texts say about their tokens.
struct TokenOptions {
  TokenRules rules{};
  VocabularyLimits limits{};
  void describe_kind(OptionSection& section);
  void describe_limits(OptionSection& section, const std::filesystem::path& vocabulary);
  /// IoError if a vocabulary is to be made by a model of subwords that is not there.
  void expect_model(const Vocabularies& given) const;
};

/// IoError that names the key unless its path leads somewhere; an empty one is none.
void expect_there(const char* key, const std::filesystem::path& path);

/// The vocabulary that is given for a role, or null. ConfigError if it cuts texts by other rules.
const Vocabulary* given_vocabulary(const Vocabularies& given, const std::string& role,
                                   const TokenRules& rules);

/// ConfigError unless 0 < train_fraction ≤ 1.
void expect_train_fraction(double train_fraction);

}  // namespace carousel
