#include "engine/data/corpus.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>

#include <cmath>
#include <filesystem>
#include <utility>

#include "engine/files/atomic.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;

// Part of every name in a cache: changes whenever the same text gives other tokens than before.
constexpr int kCutVersion = 1;

// What tells that a file is not the one it was. The time of change of the inode cannot be set back,
// as that of the content can, so that a copy with a preserved time is noticed.
std::string identity(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) throw_io_error("open", path);
  if (!S_ISREG(status.st_mode)) throw ConfigError(fmt::format("{} is not a regular file", path));
  return fmt::format("{} {} {}.{} {}.{}\n", fs::canonical(path).string(), status.st_size,
                     status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec,
                     status.st_ctim.tv_nsec);
}

std::string identity(const std::vector<std::string>& texts) {
  if (texts.empty()) throw ConfigError("data: no text was given");
  std::string all;
  for (const std::string& path : texts) all += identity(path);
  return all;
}

// Texts as they were when this was made, and where what is made of them is kept.
class Source {
 public:
  Source(const std::vector<std::string>& texts, const std::string& cache)
      : texts_(texts), cache_(cache), identity_(identity(texts)) {}

  fs::path kept(const std::string& how, const char* extension) const {
    const std::uint64_t key = fnv1a(fmt::format("{}{} {}", identity_, kCutVersion, how));
    return cache_ / fmt::format("{}-{:016x}.{}", fs::path(texts_.front()).filename().string(), key,
                                extension);
  }
  void make_cache() const { make_folders(cache_); }
  void expect_unchanged() const {
    if (identity(texts_) != identity_) {
      throw FormatError(fmt::format("{} changed while it was read", name()));
    }
  }
  std::string name() const { return fmt::format("{}", fmt::join(texts_, " + ")); }

 private:
  const std::vector<std::string>& texts_;
  fs::path cache_;
  std::string identity_;
};

// The first place from `cut` on where the text may be divided.
std::int64_t next_boundary(const TokenRange& tokens, const Vocabulary& vocabulary,
                           std::int64_t cut) {
  const auto divides = [&](std::int32_t id) {  // a token that may not stand first
    if (vocabulary.rules().newline == Newline::line) return id != vocabulary.begin();
    const bool is_byte = vocabulary.rules().kind == TokenKind::byte && id < 256;
    return is_byte && (static_cast<unsigned>(id) & 0xC0U) == 0x80U;
  };
  while (cut < tokens.count && divides(tokens[cut])) ++cut;
  return cut;
}

}  // namespace

Vocabulary counted_vocabulary(const std::vector<std::string>& texts, const TokenRules& rules,
                              const VocabularyLimits& limits, const std::string& cache) {
  const Source source(texts, cache);
  const std::string how =
      fmt::format("{} {} {} {} {}", static_cast<int>(rules.kind), static_cast<int>(rules.newline),
                  rules.unknown, limits.minimum_count, limits.maximum_size);
  const fs::path kept = source.kept(how, "vocabulary");
  if (fs::exists(kept)) return Vocabulary::read(kept.string());

  VocabularyCounter counter(rules);
  for (const std::string& path : texts) counter.add_file(path);
  source.expect_unchanged();
  Vocabulary vocabulary = counter.vocabulary(limits);
  source.make_cache();
  write_file_atomically(kept, vocabulary.text());
  return vocabulary;
}

TokenRange tokenised(const std::vector<std::string>& texts, const Vocabulary& vocabulary,
                     const std::string& cache) {
  const Source source(texts, cache);
  const fs::path kept = source.kept(fmt::format("{:016x}", vocabulary.fingerprint()), "tokens");
  if (!fs::exists(kept)) {
    source.make_cache();
    TokenFileWriter writer(kept.string(), vocabulary);
    std::int64_t characters = 0;
    for (const std::string& path : texts) {
      characters += tokenize_file(path, vocabulary.rules(), writer);
    }
    if (writer.count() == 0) {
      throw FormatError(fmt::format("{}: line 1, byte 0: the text has no tokens", source.name()));
    }
    source.expect_unchanged();
    writer.finish(characters);
  }
  auto file = std::make_shared<const TokenFile>(kept.string(), vocabulary);
  const std::int64_t count = file->count();
  return {std::move(file), 0, count, source.name()};
}

Corpus open_corpus(const CorpusFiles& files, const Vocabulary& vocabulary) {
  if (!(files.train_ratio > 0 && files.train_ratio <= 1)) {
    throw ConfigError(
        fmt::format("data: train_ratio is {}, expected more than 0, at most 1", files.train_ratio));
  }
  Corpus corpus{vocabulary, tokenised(files.train, vocabulary, files.cache), {}, {}};
  if (!files.validation.empty()) {
    corpus.validation = tokenised(files.validation, vocabulary, files.cache);
  } else {
    const TokenRange all = corpus.train;
    const auto share = std::floor(files.train_ratio * static_cast<double>(all.count));
    const std::int64_t cut = next_boundary(all, vocabulary, static_cast<std::int64_t>(share));
    corpus.train.count = cut;
    corpus.validation = {all.file, cut, all.count - cut, all.name};
  }
  if (!files.test.empty()) corpus.test = tokenised(files.test, vocabulary, files.cache);
  return corpus;
}

}  // namespace carousel
