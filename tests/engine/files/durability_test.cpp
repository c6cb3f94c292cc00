// A power cut may take every write and every name that was not fsynced, so the order of a save's
// system calls matters and not only their presence. This follows each call and objects to any that
// relies on something that could still be lost.
#include <fcntl.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "engine/training/checkpoint.h"
#include "tests/support/checkpoints.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using test::checkpoint_of;
using test::TemporaryFolder;

class OrderChecker final : public SystemCalls {
 public:
  int renames = 0;

  int open(const char* path, int flags, mode_t mode) override {
    const int file = SystemCalls::open(path, flags, mode);
    open_[file] = path;
    if ((flags & O_CREAT) != 0) unsynced_.insert(fs::path(path).parent_path());
    return file;
  }
  ssize_t write(int file, const void* data, std::size_t bytes) override {
    unsynced_.insert(open_.at(file));
    return SystemCalls::write(file, data, bytes);
  }
  int fsync(int file) override {
    unsynced_.erase(open_.at(file));
    renamed_.erase(open_.at(file));
    return SystemCalls::fsync(file);
  }
  int mkdir(const char* path, mode_t mode) override {
    unsynced_.insert(fs::path(path).parent_path());
    return SystemCalls::mkdir(path, mode);
  }
  int rename(const char* from, const char* to) override {
    ++renames;
    for (const fs::path& path : unsynced_) {
      EXPECT_FALSE(path.string().starts_with(from)) << path << " is not durable before its name";
    }
    if (fs::is_symlink(from)) {
      EXPECT_FALSE(renamed_.contains(fs::path(to).parent_path()))
          << to << " leads to a name that is not durable";
    }
    renamed_.insert(fs::path(to).parent_path());
    return SystemCalls::rename(from, to);
  }
  int exchange(const char* a, const char* b) override {
    for (const fs::path& path : unsynced_) EXPECT_FALSE(path.string().starts_with(a)) << path;
    renamed_.insert(fs::path(b).parent_path());
    return SystemCalls::exchange(a, b);
  }
  int unlink(const char* path) override {
    EXPECT_FALSE(renamed_.contains(fs::path(path).parent_path().parent_path()))
        << path << " goes while its folder may still come back under its proper name";
    return SystemCalls::unlink(path);
  }
  void expect_all_durable() const {
    EXPECT_TRUE(unsynced_.empty()) << *unsynced_.begin();
    EXPECT_TRUE(renamed_.empty()) << *renamed_.begin();
  }

 private:
  std::map<int, fs::path> open_;
  std::set<fs::path> unsynced_;  ///< files with lost writes, folders with lost names
  std::set<fs::path> renamed_;   ///< folders with lost renames
};

TEST(Checkpoint, NothingIsReliedOnBeforeItIsDurable) {
  const TemporaryFolder run;
  OrderChecker calls;
  CheckpointFolder folder(run / "a/new/run", 0, calls);
  for (const std::int64_t step : {1, 2, 3, 3, 4}) {  // 3 twice: replaced in place
    folder.save(step, checkpoint_of(Cpu{}, step), step == 2);
    calls.expect_all_durable();
  }
  EXPECT_GT(calls.renames, 10);
  EXPECT_EQ(folder.steps(), (std::vector<std::int64_t>{2, 4}));
}

TEST(Safetensors, AFileIsDurableWhenTheWriterReturns) {
  const TemporaryFolder folder;
  OrderChecker calls;
  write_safetensors(folder / "f", checkpoint_of(Cpu{}, 1).weights, {}, calls);
  calls.expect_all_durable();
}

}  // namespace
}  // namespace carousel
