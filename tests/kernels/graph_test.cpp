#include "kernels/common/graph.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/fence.h"
#include "kernels/common/memory.h"
#include "kernels/copy/copy.h"
#include "kernels/matmul/matmul.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using test::Buffer;
using test::error_text;

TEST(GraphOnCpu, IsRefused) {
  EXPECT_EQ(error_text<CudaError>([] { Graph(Cpu{}, [] {}); }),
            "graph: the CPU has none, expected a CUDA device");
}

/// x = x·x for x = [1 a; 0 1], which doubles a: every run gives another number.
struct Squaring {
  explicit Squaring(const Device& on)
      : device(on), x(on, std::vector<float>{1, 1, 0, 1}), y(on, 4) {
    queue();  // the product's algorithm is chosen
  }
  void queue() const {
    run(device, Matmul<float, float>{.a = x.view(2, 2), .b = x.view(2, 2), .c = y.view(2, 2)});
    run(device, Cast<float, float>{.from = y.view(4), .to = x.view(4)});
  }
  float a() const { return x.read()[1]; }

  Device device;
  Buffer<float> x, y;
};

class GraphOnCuda : public testing::Test {
 protected:
  void SetUp() override { CAROUSEL_SKIP_WITHOUT_CUDA(); }
  static const Device& device() { return *test::cuda_device(); }
};

TEST_F(GraphOnCuda, RunsWhatWasQueuedAsOftenAsItIsLaunched) {
  const Squaring squaring(device());
  EXPECT_EQ(squaring.a(), 2);
  const Graph graph(device(), [&] { squaring.queue(); });
  EXPECT_EQ(squaring.a(), 2) << "a capture runs nothing";
  graph.launch();
  EXPECT_EQ(squaring.a(), 4);
  graph.launch();
  squaring.queue();
  graph.launch();
  EXPECT_EQ(squaring.a(), 32);
}

TEST_F(GraphOnCuda, MayGoWhileItIsStillToRun) {
  const Squaring squaring(device());
  Graph(device(), [&] { squaring.queue(); }).launch();
  EXPECT_EQ(squaring.a(), 4);
}

TEST_F(GraphOnCuda, RefusesWhatItWouldNotRepeatAndLeavesTheDeviceAsItWas) {
  const Squaring squaring(device());
  const PinnedMemory pinned(device(), 16);
  std::vector<float> pageable(4);
  Fence fence(device());
  struct Mistake {
    std::function<void()> make;
    std::string text;
  };
  const std::vector<Mistake> mistakes{
      {[&] { Memory(device(), 8); }, "allocating device memory cannot be part of a graph"},
      {[&] { copy_to_device(device(), squaring.y.view(4).data, pageable.data(), 16); },
       "copying to the device cannot be part of a graph"},
      {[&] { copy_to_device(device(), squaring.y.view(4).data, pinned.data(), 16); },
       "copying to the device cannot be part of a graph"},
      {[&] { copy_to_host(device(), pageable.data(), squaring.y.view(4).data, 16); },
       "not permitted when stream is capturing"},
      {[&] { fence.record(); },
       "moving a fence cannot be part of a graph, and one is being captured"}};
  float want = 2;
  for (const Mistake& mistake : mistakes) {
    const std::string text = error_text<CudaError>([&] {
      Graph(device(), [&] {
        squaring.queue();
        mistake.make();
        squaring.queue();
      });
    });
    EXPECT_NE(text.find(mistake.text), std::string::npos) << text;
    EXPECT_EQ(squaring.a(), want);
    Graph(device(), [&] { squaring.queue(); }).launch();
    want *= 2;
    EXPECT_EQ(squaring.a(), want) << "the next capture, after: " << text;
  }
}

TEST_F(GraphOnCuda, LetsAnyExceptionThrough) {
  const Squaring squaring(device());
  EXPECT_EQ(error_text<ShapeError>([&] {
              Graph(device(), [&] {
                squaring.queue();
                throw ShapeError("an op's");
              });
            }),
            "an op's");
  squaring.queue();
  EXPECT_EQ(squaring.a(), 4);
}

#if CAROUSEL_CUDA
TEST_F(GraphOnCuda, RefusesADeviceThatWaitsAfterEveryKernel) {
  setenv("CAROUSEL_SYNC", "1", 1);
  const Device waiting = Cuda();
  unsetenv("CAROUSEL_SYNC");
  EXPECT_EQ(error_text<CudaError>([&] { Graph(waiting, [] {}); }),
            "graph: with CAROUSEL_SYNC=1 the host waits after every kernel, which a graph cannot");
}
#endif

}  // namespace
}  // namespace carousel
