#include "engine/files/atomic.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "kernels/common/check.h"
#include "tests/support/failing_calls.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::FailingCalls;
using test::Failure;
using test::file_content;
using test::TemporaryFolder;

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

/// Writes down which calls are made, in order.
class RecordingCalls final : public SystemCalls {
 public:
  std::vector<std::string> made;
  int open(const char* path, int flags, mode_t mode) override {
    made.push_back(std::string(flags & O_DIRECTORY ? "open folder" : "open"));
    return SystemCalls::open(path, flags, mode);
  }
  ssize_t write(int file, const void* data, std::size_t bytes) override {
    made.push_back("write");
    return SystemCalls::write(file, data, bytes);
  }
  int fsync(int file) override {
    made.push_back("fsync");
    return SystemCalls::fsync(file);
  }
  int close(int file) override {
    made.push_back("close");
    return SystemCalls::close(file);
  }
  int rename(const char* from, const char* to) override {
    made.push_back("rename");
    return SystemCalls::rename(from, to);
  }
};

TEST(Atomic, AFileIsOnTheDiskBeforeItHasItsName) {
  const TemporaryFolder folder;
  RecordingCalls calls;
  write_file_atomically(folder / "a", "text", calls);
  EXPECT_EQ(calls.made, (std::vector<std::string>{"open", "write", "fsync", "close", "rename",
                                                  "open folder", "fsync", "close"}));
  EXPECT_EQ(file_content(folder / "a"), "text");
}

TEST(Atomic, AFileIsOldOrNewWhicheverCallFails) {
  for (const Failure failure : {Failure::no_space, Failure::full_disk, Failure::bad_disk}) {
    FailingCalls counting;
    {
      const TemporaryFolder folder;
      write_file_atomically(folder / "a", "new", counting);
    }
    int failed = 0;
    for (int at = 0; at < counting.count(); ++at) {
      const TemporaryFolder folder;
      write_file_atomically(folder / "a", "old");
      FailingCalls calls(failure, at);
      try {
        write_file_atomically(folder / "a", "new", calls);
        EXPECT_EQ(file_content(folder / "a"), "new") << "call " << at;
      } catch (const IoError& error) {
        ++failed;
        EXPECT_TRUE(file_content(folder / "a") == "old" || file_content(folder / "a") == "new");
        EXPECT_NE(std::string(error.what()).find((folder / "").parent_path().string()),
                  std::string::npos);
      }
      EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"a"}) << "call " << at;
    }
    // All but the last, closing a folder that was only read, must have been noticed; a full disk
    // stops open and write alone (and, after them, nothing that this file needs).
    EXPECT_GE(failed, failure == Failure::full_disk ? 2 : counting.count() - 1);
  }
}

TEST(Atomic, InterruptedAndShortWritesAreTakenUpAgain) {
  const std::string text(1000, 'x');
  FailingCalls counting(Failure::interrupted, -1);
  const TemporaryFolder folder;
  write_file_atomically(folder / "a", text, counting);
  EXPECT_GT(counting.count(), 200);  // five bytes a write
  for (int at = 0; at < 5; ++at) {
    FailingCalls calls(Failure::interrupted, at);
    write_file_atomically(folder / "a", text, calls);
    EXPECT_EQ(file_content(folder / "a"), text);
  }
}

TEST(Atomic, TheErrorNamesTheActionThePathAndTheSystemsWords) {
  const TemporaryFolder folder;
  FailingCalls calls(Failure::no_space, 1);
  const std::string text =
      error_text<IoError>([&] { write_file_atomically(folder / "a", "text", calls); });
  EXPECT_TRUE(text.starts_with("write " + folder.path().string() + "/.a.tmp.")) << text;
  EXPECT_TRUE(text.ends_with("No space left on device")) << text;
}

TEST(Atomic, AFolderAppearsWholeAndReplacesOneOfTheSameName) {
  const TemporaryFolder folder;
  for (const char* content : {"one", "two"}) {
    NewFolder fresh(folder / "x");
    OutputFile file(fresh.temporary_path() / "f", OutputFile::Mode::create);
    file.write(content);
    file.finish();
    fresh.commit();
    EXPECT_EQ(file_content(folder / "x/f"), content);
    EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"x"});
  }
}

TEST(Atomic, AFolderWithoutCommitLeavesNothing) {
  const TemporaryFolder folder;
  {
    const NewFolder fresh(folder / "x");
    test::write_content(fresh.temporary_path() / "f", "text");
  }
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(Atomic, ALinkIsReplacedAndRelative) {
  const TemporaryFolder folder;
  replace_link(folder / "last", "a");
  replace_link(folder / "last", "b");
  EXPECT_EQ(fs::read_symlink(folder / "last"), "b");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"last"});
}

TEST(Atomic, ALinkDoesNotReplaceAFolder) {
  const TemporaryFolder folder;
  make_folders(folder / "last");
  EXPECT_THROW(replace_link(folder / "last", "b"), IoError);
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"last"});
}

TEST(Atomic, LeftoversAreRecognisedByNameAndRemoved) {
  for (const char* name : {".a.tmp.1", ".step-7.tmp.12345", ".a.tmp.9.tmp.1"}) {
    EXPECT_TRUE(is_temporary_name(name)) << name;
  }
  for (const char* name : {"", ".", "a.tmp.1", ".tmp.1", ".a.tmp.", ".a.tmp.1x", ".a", "step-7"}) {
    EXPECT_FALSE(is_temporary_name(name)) << name;
  }
  const TemporaryFolder folder;
  make_folders(folder / ".step-7.tmp.12345/inner");
  test::write_content(folder / ".step-7.tmp.12345/f", "text");
  test::write_content(folder / "kept", "text");
  replace_link(folder / ".last.tmp.77", "kept");  // only the link goes, not what it leads to
  EXPECT_EQ(remove_leftovers(folder.path()), 2);
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"kept"});
  EXPECT_EQ(remove_leftovers(folder / "nowhere"), 0);
}

TEST(Atomic, ALockIsHeldByOneAndFreedByTheEndOfItsProcess) {
  const TemporaryFolder folder;
  const auto child_can_lock = [&](bool keep) {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        const FolderLock lock(folder.path());
        if (keep) ::_exit(0);  // without the destructor, as a kill would
      } catch (const IoError&) {
        ::_exit(1);
      }
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  };
  {
    const FolderLock lock(folder.path());
    EXPECT_FALSE(child_can_lock(false));
    const std::string text = error_text<IoError>([&] { const FolderLock second(folder.path()); });
    EXPECT_NE(text.find("in use by another process"), std::string::npos) << text;
  }
  EXPECT_TRUE(child_can_lock(true));
  EXPECT_TRUE(child_can_lock(false));
}

}  // namespace
}  // namespace carousel
