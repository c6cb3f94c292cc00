#include "engine/run/run_folder.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::TemporaryFolder;

TEST(RunFolder, OpensOnlyWhatIsMeant) {
  struct Case {
    const char* what;
    std::vector<std::string> there;  ///< names in the folder; one ending in / is a folder
    bool exists, resume;
    std::string error;  ///< empty: it is opened
  };
  for (const Case& c : std::vector<Case>{
           {"new", {}, false, false, ""},
           {"new, and the folder is there", {}, true, false, ""},
           {"new over a run", {".lock", "checkpoints/"}, true, false, "exists already"},
           {"new over something else", {"thesis.tex"}, true, false, "is no run"},
           {"resume nothing", {}, false, true, "there is no run"},
           {"resume a run", {".lock", "checkpoints/"}, true, true, ""},
           {"resume a run that was copied", {"checkpoints/"}, true, true, ""},
           {"resume a run that was killed at once", {".lock"}, true, true, ""},
           {"resume an empty folder", {}, true, true, ""},
           {"resume weights", {"model.safetensors"}, true, true, "has weights alone"},
           {"resume a checkpoint",
            {"model.safetensors", "state.safetensors"},
            true,
            true,
            "is a checkpoint, expected the folder of its run"},
           {"resume something else", {"thesis.tex"}, true, true, "not the folder of a run"},
       }) {
    SCOPED_TRACE(c.what);
    const TemporaryFolder parent;
    const fs::path path = parent / "run";
    if (c.exists) fs::create_directory(path);
    for (const std::string& name : c.there) {
      if (name.back() == '/') {
        fs::create_directory(path / name);
      } else {
        test::write_content(path / name, "mine");
      }
    }
    const std::string error = error_text<ConfigError>([&] {
      const RunFolder folder(path, c.resume);
      EXPECT_TRUE(fs::is_directory(path));
    });
    if (c.error.empty()) {
      EXPECT_EQ(error, "");
    } else {
      EXPECT_NE(error.find(c.error), std::string::npos) << error;
    }
    for (const std::string& name : c.there) EXPECT_TRUE(fs::exists(path / name)) << name;
    EXPECT_EQ(fs::exists(path / "thesis.tex"), !c.there.empty() && c.there[0] == "thesis.tex");
  }
}

TEST(RunFolder, IsKeptOnceThereIsACheckpoint) {
  for (const bool resume : {false, true}) {
    for (const bool saved : {false, true}) {
      const TemporaryFolder parent;
      const fs::path path = parent / "run";
      if (resume) fs::create_directory(path);
      {
        const RunFolder folder(path, resume);
        if (saved) {
          fs::create_directories(path / "checkpoints" / "step-1");
          fs::create_directory_symlink("step-1", path / "checkpoints" / "last");
        }
      }
      EXPECT_EQ(fs::exists(path), resume || saved);
    }
  }
}

TEST(RunFolder, IsKeptIfItsDiskFails) {
  const TemporaryFolder parent;
  RunFolder(parent / "run", false).keep();
  EXPECT_TRUE(fs::exists(parent / "run"));
}

TEST(RunFolder, IsFoundAgainWhereItWasRenamedToAndMadeAnewIfItWasRemoved) {
  const TemporaryFolder parent;
  const fs::path run = parent / "run", other = parent / "other";
  RunFolder folder(run, false);
  EXPECT_EQ(folder.find(), "");
  fs::rename(run, other);
  EXPECT_EQ(folder.find(), run.string() + " is " + other.string() + " now, where the run goes on");
  EXPECT_EQ(folder.path(), other);
  EXPECT_EQ(folder.find(), "");
  fs::remove_all(other);
  EXPECT_EQ(folder.find(), other.string() + " was removed; the run goes on in a new one");
  EXPECT_EQ(folder.path(), other);
  EXPECT_EQ(folder.find(), "");
  fs::remove_all(other);
  fs::create_directory(other);
  test::write_content(other / "thesis.tex", "mine");
  EXPECT_EQ(folder.find(),
            other.string() + " was removed; the run goes on in " + other.string() + ".recovered");
  EXPECT_NE(error_text<IoError>([&] { RunFolder(folder.path(), true); }).find("in use"),
            std::string::npos);
}

TEST(RunFolder, IsLockedWhileItIsOpenAndFreeOfLeftovers) {
  const TemporaryFolder parent;
  const fs::path path = parent / "run";
  fs::create_directories(path / "cache");
  for (const char* name :
       {".lock", ".config.toml.tmp.77", "cache/.tokens.tmp.77", "cache/tokens"}) {
    test::write_content(path / name, "");
  }
  const RunFolder folder(path, /*resume=*/true);
  EXPECT_FALSE(fs::exists(path / ".config.toml.tmp.77"));
  EXPECT_FALSE(fs::exists(path / "cache" / ".tokens.tmp.77"));
  EXPECT_TRUE(fs::exists(path / "cache" / "tokens"));
  EXPECT_NE(error_text<IoError>([&] { RunFolder(path, true); }).find("in use"), std::string::npos);
}

}  // namespace
}  // namespace carousel
