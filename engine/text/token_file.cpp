#include "engine/text/token_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
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

template <class Id>
void narrow(const std::vector<std::int32_t>& from, std::byte* to) {
  for (std::size_t i = 0; i < from.size(); ++i) {
    const Id id = static_cast<Id>(from[i]);
    std::memcpy(to + i * sizeof(Id), &id, sizeof(Id));
  }
}

}  // namespace

TokenFile::TokenFile(std::string path, const Vocabulary& vocabulary) : path_(std::move(path)) {
  const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw_io_error("open", path_);
  struct stat status {};
  void* data = MAP_FAILED;
  if (::fstat(file, &status) == 0) {
    size_ = static_cast<std::size_t>(status.st_size);
    // At least one byte, because mmap refuses an empty mapping. check() refuses an empty file.
    data = ::mmap(nullptr, std::max<std::size_t>(size_, 1), PROT_READ, MAP_SHARED, file, 0);
  }
  const int error = errno;
  ::close(file);
  if (data == MAP_FAILED) {
    errno = error;
    throw_io_error("map", path_);
  }
  data_ = data;
  try {
    check(vocabulary);
  } catch (...) {
    ::munmap(data, std::max<std::size_t>(size_, 1));
    throw;
  }
}

TokenFile::~TokenFile() { ::munmap(data_, std::max<std::size_t>(size_, 1)); }

void TokenFile::check(const Vocabulary& vocabulary) {
  const auto fail = [&](const std::string& what) {
    throw FormatError(
        fmt::format("{}: {}; remove it, and it is made again from the text", path_, what));
  };
  Header header{};
  Footer footer{};
  if (size_ >= sizeof(Header)) std::memcpy(&header, bytes(), sizeof(Header));
  if (std::memcmp(header.magic, kHeader.magic, sizeof(header.magic)) != 0) {
    fail("not a Carousel token file");
  }
  if (header.version != kHeader.version) {
    fail(fmt::format("version {}, expected {}", header.version, kHeader.version));
  }
  if (size_ < sizeof(Header) + sizeof(Footer)) fail("the file was cut short");
  std::memcpy(&footer, bytes() + size_ - sizeof(Footer), sizeof(Footer));
  const std::size_t ids = size_ - sizeof(Header) - sizeof(Footer);
  if (footer.own_checksum != own_checksum(header, footer) ||
      padded(footer.count * header.width) != ids ||
      footer.checksum != checksum(bytes() + sizeof(Header), ids, kChecksumStart)) {
    fail("the file is damaged or was cut short");
  }
  if (footer.fingerprint != vocabulary.fingerprint()) {
    fail("the tokens were made with another vocabulary");
  }
  count_ = static_cast<std::int64_t>(footer.count);
  unknown_ = static_cast<std::int64_t>(footer.unknown);
  characters_ = static_cast<std::int64_t>(footer.characters);
  width_ = header.width;
}

void TokenFile::read(std::int64_t offset, std::int64_t n, std::int32_t* to) const {
  expect_inside(path_, offset, n, count_);
  const std::byte* const from =
      bytes() + sizeof(Header) + static_cast<std::size_t>(offset * width_);
  if (width_ == 1) widen<std::uint8_t>(from, n, to);
  if (width_ == 2) widen<std::uint16_t>(from, n, to);
  if (width_ == 4) widen<std::int32_t>(from, n, to);
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
  if (width_ == 1) narrow<std::uint8_t>(waiting_, bytes.data());
  if (width_ == 2) narrow<std::uint16_t>(waiting_, bytes.data());
  if (width_ == 4) narrow<std::int32_t>(waiting_, bytes.data());
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
