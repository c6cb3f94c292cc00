#include "engine/text/token_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernels/common/check.h"

namespace carousel {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian");

struct Header {
  char magic[8];
  std::uint32_t version, width;
};
struct Footer {
  std::uint64_t count, unknown, characters, fingerprint, checksum, own_checksum;
};
static_assert(sizeof(Header) == 16 && sizeof(Footer) == 48);

constexpr Header kHeader{{'C', 'A', 'R', 'T', 'O', 'K', 'E', 'N'}, 1, 0};
constexpr std::uint64_t kChecksumStart = 0xCBF29CE484222325U;
constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

// FNV-1a's step on words of eight bytes, with the high half folded back: several GB/s, so that
// opening a file costs little more than reading it.
std::uint64_t checksum(const std::byte* data, std::size_t bytes, std::uint64_t sum) {
  for (std::size_t i = 0; i < bytes; i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, data + i, 8);
    sum = (sum ^ word) * 0x9E3779B97F4A7C15U;
    sum ^= sum >> 32;
  }
  return sum;
}

std::uint64_t own_checksum(const Header& header, const Footer& footer) {
  std::byte bytes[sizeof(Header) + sizeof(Footer) - 8];
  std::memcpy(bytes, &header, sizeof(Header));
  std::memcpy(bytes + sizeof(Header), &footer, sizeof(Footer) - 8);
  return checksum(bytes, sizeof(bytes), kChecksumStart);
}

std::uint32_t id_width(const Vocabulary& vocabulary) {
  if (vocabulary.size() <= 1 << 8) return 1;
  return vocabulary.size() <= 1 << 16 ? 2 : 4;
}

constexpr std::size_t padded(std::size_t bytes) { return (bytes + 7) / 8 * 8; }

template <class Id>
void widen(const std::byte* from, std::int64_t n, std::int32_t* to) {
  for (std::int64_t i = 0; i < n; ++i) {
    Id id{};
    std::memcpy(&id, from + static_cast<std::size_t>(i) * sizeof(Id), sizeof(Id));
    to[i] = static_cast<std::int32_t>(id);
  }
}

/// Calls with the type of ids that take so many bytes.
template <class F>
void visit_width(std::int64_t width, F&& f) {
  if (width == 1) f(std::type_identity<std::uint8_t>{});
  if (width == 2) f(std::type_identity<std::uint16_t>{});
  if (width == 4) f(std::type_identity<std::uint32_t>{});
}

template <class Id>
void narrow(const std::vector<std::int32_t>& from, std::byte* to) {
  for (std::size_t i = 0; i < from.size(); ++i) {
    const Id id = static_cast<Id>(from[i]);
    std::memcpy(to + i * sizeof(Id), &id, sizeof(Id));
  }
}

}  // namespace

TokenFile::TokenFile(const std::string& path, const Vocabulary& vocabulary) : file_(path) {
  const auto fail = [&](const std::string& what) {
    throw FormatError(
        fmt::format("{}: {}; remove it, and it is made again from the text", path, what));
  };
  Header header{};
  Footer footer{};
  const std::size_t size = file_.size();
  if (size >= sizeof(Header)) file_.read(0, &header, sizeof(Header));
  if (std::memcmp(header.magic, kHeader.magic, sizeof(header.magic)) != 0) {
    fail("not a Carousel token file");
  }
  if (header.version != kHeader.version) {
    fail(fmt::format("version {}, expected {}", header.version, kHeader.version));
  }
  if (size < sizeof(Header) + sizeof(Footer)) fail("the file was cut short");
  file_.read(size - sizeof(Footer), &footer, sizeof(Footer));
  const std::size_t ids = size - sizeof(Header) - sizeof(Footer);
  // Compared by division, for the product may overflow.
  const bool is_whole = (header.width == 1 || header.width == 2 || header.width == 4) &&
                        footer.count <= ids / header.width &&
                        padded(footer.count * header.width) == ids &&
                        footer.unknown <= footer.count && footer.characters >> 63 == 0;
  width_ = header.width;
  if (!is_whole || footer.own_checksum != own_checksum(header, footer) ||
      footer.checksum != checksum_of_ids(ids)) {
    fail("the file is damaged or was cut short");
  }
  if (footer.fingerprint != vocabulary.fingerprint()) {
    fail("the tokens were made with another vocabulary");
  }
  if (largest_ >= vocabulary.size())
    fail(fmt::format("an id is {}, expected less than {}", largest_, vocabulary.size()));
  count_ = static_cast<std::int64_t>(footer.count);
  unknown_ = static_cast<std::int64_t>(footer.unknown);
  characters_ = static_cast<std::int64_t>(footer.characters);
}

std::uint64_t TokenFile::checksum_of_ids(std::size_t bytes) {
  std::vector<std::byte> piece(std::min(bytes, kPieceBytes));
  std::uint64_t sum = kChecksumStart;
  for (std::size_t at = 0; at < bytes; at += piece.size()) {
    const std::size_t count = std::min(piece.size(), bytes - at);
    file_.read(sizeof(Header) + at, piece.data(), count);
    sum = checksum(piece.data(), count, sum);
    visit_width(width_, [&]<class Id>(std::type_identity<Id>) {
      for (std::size_t i = 0; i < count; i += sizeof(Id)) {
        Id id{};
        std::memcpy(&id, piece.data() + i, sizeof(Id));
        largest_ = std::max<std::int64_t>(largest_, id);
      }
    });
  }
  return sum;
}

void TokenFile::read(std::int64_t offset, std::int64_t n, std::int32_t* to) const {
  expect_inside(file_.path().string(), offset, n, count_);
  const auto width = static_cast<std::size_t>(width_), count = static_cast<std::size_t>(n);
  // The narrow ids are read into the last bytes of their place and widened from the first on: each is
  // read before it is written over.
  std::byte* const from = reinterpret_cast<std::byte*>(to) + count * (sizeof(std::int32_t) - width);
  file_.read(sizeof(Header) + static_cast<std::size_t>(offset) * width, from, count * width);
  visit_width(width_, [&]<class Id>(std::type_identity<Id>) { widen<Id>(from, n, to); });
}

TokenFileWriter::TokenFileWriter(std::string path, const Vocabulary& vocabulary)
    : TokenWriter(vocabulary),
      path_(std::move(path)),
      file_(path_),
      width_(id_width(vocabulary)),
      checksum_(kChecksumStart) {
  waiting_.reserve(kWaiting);
  Header header = kHeader;
  header.width = id_width(vocabulary);
  file_.file().write(&header, sizeof(header));
}

void TokenFileWriter::flush() {
  std::vector<std::byte> bytes(padded(waiting_.size() * width_));
  visit_width(static_cast<std::int64_t>(width_),
              [&]<class Id>(std::type_identity<Id>) { narrow<Id>(waiting_, bytes.data()); });
  checksum_ = checksum(bytes.data(), bytes.size(), checksum_);
  file_.file().write(bytes.data(), bytes.size());
  count_ += static_cast<std::int64_t>(waiting_.size());
  waiting_.clear();
}

std::shared_ptr<const TokenStore> TokenFileWriter::finish(std::int64_t characters) {
  flush();
  Header header = kHeader;
  header.width = static_cast<std::uint32_t>(width_);
  Footer footer{static_cast<std::uint64_t>(count_),
                static_cast<std::uint64_t>(unknown_),
                static_cast<std::uint64_t>(characters),
                vocabulary_.fingerprint(),
                checksum_,
                0};
  footer.own_checksum = own_checksum(header, footer);
  file_.file().write(&footer, sizeof(footer));
  file_.commit();
  return std::make_shared<const TokenFile>(path_, vocabulary_);
}

}  // namespace carousel
