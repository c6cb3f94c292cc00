#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace carousel {

/// The system calls that change files, one method each, so that a test can make any of them fail or
/// end the process there. They return what the kernel returns and set errno.
class SystemCalls {
 public:
  virtual ~SystemCalls() = default;
  virtual int open(const char* path, int flags, mode_t mode);
  virtual ssize_t write(int file, const void* data, std::size_t bytes);
  virtual int fsync(int file);
  virtual int ftruncate(int file, off_t bytes);
  virtual int close(int file);
  virtual int mkdir(const char* path, mode_t mode);
  virtual int rename(const char* from, const char* to);
  virtual int exchange(const char* a, const char* b);  ///< swaps two names
  virtual int symlink(const char* target, const char* link);
  virtual int unlink(const char* path);
  virtual int rmdir(const char* path);
  virtual std::uint64_t available(const char* path);  ///< bytes; the most there can be if unknown
};

/// The real ones.
SystemCalls& kernel_calls();

/// A file open for writing. Its functions throw IoError if a call fails; the destructor closes the
/// file without reporting errors.
class OutputFile {
 public:
  /// The file must not exist yet, is written on, or is there and written over from its beginning.
  enum class Mode { create, append, overwrite };
  OutputFile(std::filesystem::path path, Mode mode, SystemCalls& calls = kernel_calls());
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  const std::filesystem::path& path() const { return path_; }
  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void sync();  ///< returns when everything written is on the disk
  void truncate(std::size_t bytes);
  void finish();                ///< sync and close
  std::string content() const;  ///< also of a file whose name is gone

 private:
  std::filesystem::path path_;
  SystemCalls& calls_;
  int file_;
};

/// A file that appears under its name complete and durable, or not at all: written under a
/// temporary name in the same folder, fsynced, renamed, and the folder fsynced.
class NewFile {
 public:
  explicit NewFile(std::filesystem::path path, SystemCalls& calls = kernel_calls());
  ~NewFile();  ///< without commit() it removes the temporary file
  OutputFile& file() { return file_; }
  void commit();

 private:
  std::filesystem::path path_;
  SystemCalls& calls_;
  OutputFile file_;
  bool committed_ = false;
};

void write_file_atomically(const std::filesystem::path& path, std::string_view bytes,
                           SystemCalls& calls = kernel_calls());

/// The whole of a file, or of what a pipe gives, up to `most` bytes.
std::string read_file(const std::filesystem::path& path, std::size_t most = std::string::npos);

/// Returns when the folder's list of names is on the disk.
void sync_folder(const std::filesystem::path& folder, SystemCalls& calls = kernel_calls());

/// A folder of files that appears under its name complete and durable, or not at all. Write the
/// files into temporary_path() and finish() each; commit() then gives the folder its name. An older
/// folder of that name is replaced in one step and then removed.
class NewFolder {
 public:
  explicit NewFolder(std::filesystem::path path, SystemCalls& calls = kernel_calls());
  ~NewFolder();  ///< without commit() it removes the temporary folder
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  const std::filesystem::path& temporary_path() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  SystemCalls& calls_;
  bool committed_ = false;
};

/// Makes `link` a symbolic link to `target` (relative to the link's folder). An existing link is
/// replaced in one step.
void replace_link(const std::filesystem::path& link, const std::filesystem::path& target,
                  SystemCalls& calls = kernel_calls());

/// Makes the folder and those above it, durably. Does nothing if it exists.
void make_folders(const std::filesystem::path& path, SystemCalls& calls = kernel_calls());

/// Removes a folder. If the process is killed meanwhile, the folder is whole or has a temporary
/// name.
void remove_folder(const std::filesystem::path& path, SystemCalls& calls = kernel_calls());

/// Whether a name is one of the temporary ones above: ".<name>.tmp.<digits>".
bool is_temporary_name(std::string_view name);

/// Removes files and folders that killed processes have left under temporary names in the folder;
/// returns how many. The caller must hold the folder's lock, because the temporary names of a
/// running process look the same.
int remove_leftovers(const std::filesystem::path& folder, SystemCalls& calls = kernel_calls());

/// A lock that one process at a time can hold. The kernel releases it however that process ends.
/// IoError if another process holds it.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  /// Where the folder is now: `path`, if it is still there, or where it was renamed to; nothing if it
  /// was removed.
  std::optional<std::filesystem::path> where(const std::filesystem::path& path) const;

 private:
  int folder_, file_;
};

}  // namespace carousel
