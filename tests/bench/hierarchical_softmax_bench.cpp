#include "kernels/hierarchical_softmax/hierarchical_softmax.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s written, of the paths of words spread as in a text.
namespace carousel {
namespace {

using test::Buffer;

void hierarchical_softmax(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1), vocab = state.range(2);
  std::vector<std::int64_t> counts;
  for (std::int64_t v = 0; v < vocab; ++v) counts.push_back(10'000'000 / (v + 1));
  const HuffmanTree tree(counts);
  const std::int64_t nodes = std::ssize(tree.node), depth = tree.depth;
  std::vector<std::int32_t> ids;
  for (std::int64_t n = 0; n < rows; ++n) {
    ids.push_back(static_cast<std::int32_t>(n * n * n % vocab * (n % 10) / 10));
  }
  const auto size = static_cast<std::size_t>(rows * depth);
  const Buffer<std::int32_t> target(*device, ids), start(*device, tree.start),
      node(*device, tree.node), turn(*device, tree.turn), choice(*device, size),
      answer(*device, size);
  const HierarchicalSoftmax op{.target = target.view(rows),
                               .start = start.view(vocab + 1),
                               .node = node.view(nodes),
                               .turn = turn.view(nodes),
                               .choice = choice.view(rows, depth),
                               .answer = answer.view(rows, depth)};
  test::time_gigabytes(state, *device, 8 * rows * depth, [&] { run(*device, op); });
}
void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 4096, 33'278});
  b->ArgNames({"cuda", "N", "V"})->UseRealTime();
}
BENCHMARK(hierarchical_softmax)->Apply(sizes);

}  // namespace
}  // namespace carousel
