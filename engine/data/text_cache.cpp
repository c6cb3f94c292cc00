#include "engine/data/text_cache.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "engine/files/atomic.h"
#include "engine/text/token_file.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;

// Part of every name in a cache: changes whenever the same text gives other tokens than before.
constexpr int kCutVersion = 1;

// What tells that a file is not the one it was. The time of change of the inode cannot be set back,
// as that of the content can, so that a copy with a preserved time is noticed.
std::string identity(const std::vector<Text>& texts) {
  std::string all;
  for (const Text& text : texts) {
    if (text.in_memory()) continue;
    struct stat status {};
    if (::stat(text.name().c_str(), &status) != 0) throw_io_error("open", text.name());
    if (!S_ISREG(status.st_mode)) {
      throw ConfigError(fmt::format("{} is not a regular file", text.name()));
    }
    all += fmt::format("{} {} {}.{} {}.{}\n", fs::canonical(text.name()).string(), status.st_size,
                       status.st_mtim.tv_sec, status.st_mtim.tv_nsec, status.st_ctim.tv_sec,
                       status.st_ctim.tv_nsec);
  }
  return all;
}

}  // namespace

TextCache::TextCache(std::vector<Text> texts, std::string folder)
    : texts_(std::move(texts)), folder_(std::move(folder)), identity_(identity(texts_)) {
  if (texts_.empty()) throw ConfigError("data: no text was given");
}

std::string TextCache::name() const {
  std::string all;
  for (const Text& text : texts_) all += (all.empty() ? "" : " + ") + text.name();
  return all;
}

bool TextCache::keeps() const {
  return !folder_.empty() && std::none_of(texts_.begin(), texts_.end(),
                                          [](const Text& text) { return text.in_memory(); });
}

std::string TextCache::kept(const std::string& how, const char* extension) const {
  const std::uint64_t key = fnv1a(fmt::format("{}{} {}", identity_, kCutVersion, how));
  const std::string first = fs::path(texts_.front().name()).filename().string();
  return (folder_ / fmt::format("{}-{:016x}.{}", first, key, extension)).string();
}

void TextCache::expect_unchanged() const {
  if (identity(texts_) != identity_) {
    throw FormatError(fmt::format("{} changed while it was read", name()));
  }
}

Vocabulary TextCache::vocabulary(const std::string& how,
                                 const std::function<Vocabulary()>& make) const {
  const std::string path = kept(how, "vocabulary");
  if (keeps() && fs::exists(path)) return Vocabulary::read(path);
  Vocabulary made = make();
  expect_unchanged();
  if (keeps()) {
    make_folders(folder_);
    write_file_atomically(path, made.text());
  }
  return made;
}

std::shared_ptr<const TokenStore> TextCache::tokens(const std::string& how,
                                                    const Vocabulary& vocabulary) const {
  const std::string path = kept(how, "tokens");
  if (!keeps() || !fs::exists(path)) return nullptr;
  return std::make_shared<const TokenFile>(path, vocabulary);
}

std::unique_ptr<TokenWriter> TextCache::writer(const std::string& how,
                                               const Vocabulary& vocabulary) const {
  if (!keeps()) return std::make_unique<MemoryTokenWriter>(vocabulary);
  make_folders(folder_);
  return std::make_unique<TokenFileWriter>(kept(how, "tokens"), vocabulary);
}

void TextCache::keep_notice(const std::string& how, const std::string& notice) const {
  if (!keeps()) return;
  make_folders(folder_);
  write_file_atomically(kept(how, "notice"), notice);
}

std::string TextCache::notice(const std::string& how) const {
  const std::string path = kept(how, "notice");
  return keeps() && fs::exists(path) ? read_file(path) : "";
}

Vocabulary counted_vocabulary(const std::vector<Text>& texts, const TokenRules& rules,
                              const VocabularyLimits& limits, const std::string& cache) {
  const std::string how =
      fmt::format("{} {} {} {}", static_cast<int>(rules.kind), static_cast<int>(rules.newline),
                  rules.unknown, identity(limits));
  return TextCache(texts, cache).vocabulary(how, [&] {
    VocabularyCounter counter(rules);
    for (const Text& text : texts) counter.add(text);
    return counter.vocabulary(limits);
  });
}

TokenRange tokenised(const std::vector<Text>& texts, const Vocabulary& vocabulary,
                     const std::string& cache) {
  const TextCache source(texts, cache);
  const std::string how = fmt::format("{:016x}", vocabulary.fingerprint());
  if (auto kept = source.tokens(how, vocabulary)) return whole(std::move(kept), source.name());
  const auto writer = source.writer(how, vocabulary);
  std::int64_t characters = 0;
  for (const Text& text : texts) characters += tokenize(text, vocabulary.rules(), *writer);
  if (writer->count() == 0) {
    throw FormatError(fmt::format("{}: line 1, byte 0: the text has no tokens", source.name()));
  }
  source.expect_unchanged();
  return whole(writer->finish(characters), source.name());
}

}  // namespace carousel
