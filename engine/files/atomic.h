#pragma once

#include <sys/types.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace carousel {

/// The system calls that change files, one method each, so that a test can fail, or end the
/// process at, any one of them. They return what the kernel returns and set errno.
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
};

/// The ones that go to the kernel.
SystemCalls& kernel_calls();

/// A file open for writing. sync() and close() report what went wrong; the destructor only lets
/// go of the file. Everything here throws IoError.
class OutputFile {
 public:
  enum class Mode { create, append };  ///< create: the file must not exist yet
  OutputFile(std::filesystem::path path, Mode mode, SystemCalls& calls = kernel_calls());
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  const std::filesystem::path& path() const { return path_; }
  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void sync();  ///< returns when everything written is on the disk
  void truncate(std::size_t bytes);
  void finish();  ///< sync and close

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
  ~NewFile();  ///< without commit(), nothing is left
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

/// The whole of a file.
std::string read_file(const std::filesystem::path& path);

/// Returns when the names in a folder are on the disk.
void sync_folder(const std::filesystem::path& folder, SystemCalls& calls = kernel_calls());

/// The same for a folder of files: they are written into temporary_path(), each finish()ed, and
/// commit() gives the folder its name. A folder that has the name already is swapped for the new
/// one in one step and then removed.
class NewFolder {
 public:
  explicit NewFolder(std::filesystem::path path, SystemCalls& calls = kernel_calls());
  ~NewFolder();  ///< without commit(), nothing is left
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;
  const std::filesystem::path& temporary_path() const { return temporary_; }
  void commit();

 private:
  std::filesystem::path path_, temporary_;
  SystemCalls& calls_;
  bool committed_ = false;
};

/// Makes `link` a symbolic link to `target` (relative to the link's folder), in one step if there
/// is one already.
void replace_link(const std::filesystem::path& link, const std::filesystem::path& target,
                  SystemCalls& calls = kernel_calls());

/// Makes the folder and those above it, durably; does nothing where there is one.
void make_folders(const std::filesystem::path& path, SystemCalls& calls = kernel_calls());

/// Removes a folder such that a kill on the way leaves it whole or under a temporary name.
void remove_folder(const std::filesystem::path& path, SystemCalls& calls = kernel_calls());

/// Whether a name is one of the temporary ones above: ".<name>.tmp.<digits>".
bool is_temporary_name(std::string_view name);

/// Removes what killed processes left under temporary names in the folder; returns how many.
/// Only for who holds the folder's lock, for the names of a living writer look the same.
int remove_leftovers(const std::filesystem::path& folder, SystemCalls& calls = kernel_calls());

/// Held by one process at a time and let go by the kernel however that process ends. IoError if
/// another holds it.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int file_;
};

}  // namespace carousel
