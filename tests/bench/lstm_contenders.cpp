#include "tests/bench/lstm_contenders.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "tests/support/recurrent_layer.h"

namespace carousel::bench {
namespace {

using test::CudnnAlgorithm;
using test::CudnnType;

template <class T>
void open_ours(const Cuda& cuda, bool tf32, Contender& contender) {
  struct Ours {
    test::RecurrentLayer<T> layer;
    RecurrentSequenceForward<T> forward = layer.forward();
    RecurrentSequenceBackward<T> backward = layer.backward();
    test::Buffer<std::byte> forward_scratch = test::give_scratch(layer.device, forward);
    test::Buffer<std::byte> backward_scratch = test::give_scratch(layer.device, backward);
  };
  Record& who = contender.who;
  const auto ours =
      std::make_shared<const Ours>(Ours{.layer = {.device = cuda,
                                                  .cell = cell_kind("lstm"),
                                                  .size = {who.T, who.B, who.H, who.H},
                                                  .tf32 = tf32}});
  const Device device = cuda;
  contender.forward = [device, ours] { run(device, ours->forward); };
  contender.backward = [device, ours] { run(device, ours->backward); };
  const auto bytes = [](const auto& view) {
    return static_cast<std::size_t>(view.size()) * sizeof(*view.data);
  };
  who.workspace_bytes = std::max(bytes(ours->forward.scratch), bytes(ours->backward.scratch));
  who.reserve_bytes = bytes(ours->forward.gates) + bytes(ours->forward.state[0]);
  contender.forward();
}

/// A layer of cuDNN's with its tensors, of numbers like ours.
template <class T>
struct Theirs {
  test::Cudnn cudnn;
  Device device;
  test::CudnnLstmOptions options;
  test::CudnnLstm layer{cudnn, options};  // first: a refusal costs no other memory
  std::int64_t state = options.B * options.H, units = options.T * state;
  test::Buffer<T> x = test::uniform<T>(device, units), d_h = test::uniform<T>(device, units);
  test::Buffer<T> h0 = test::uniform<T>(device, state), c0 = test::uniform<T>(device, state);
  test::Buffer<T> zeros = test::uniform<T>(device, state, 0);
  test::Buffer<T> h{device, size(units)}, d_x{device, size(units)};
  test::Buffer<T> h_last{device, size(state)}, c_last{device, size(state)};
  test::Buffer<T> d_h0{device, size(state)}, d_c0{device, size(state)};
  test::CudnnLstmTensors tensors{.x = x.view(units).data,
                                 .h0 = h0.view(state).data,
                                 .c0 = c0.view(state).data,
                                 .d_h = d_h.view(units).data,
                                 .d_h_last = zeros.view(state).data,
                                 .d_c_last = zeros.view(state).data,
                                 .h = h.view(units).data,
                                 .h_last = h_last.view(state).data,
                                 .c_last = c_last.view(state).data,
                                 .d_x = d_x.view(units).data,
                                 .d_h0 = d_h0.view(state).data,
                                 .d_c0 = d_c0.view(state).data};

  Theirs(const test::Cudnn& opened, const Cuda& cuda, const test::CudnnLstmOptions& of)
      : cudnn(opened), device(cuda), options(of) {
    const Memory& parameters = layer.parameters();
    test::fill_uniform(device, static_cast<T*>(parameters.data()), parameters.bytes() / sizeof(T),
                       1 / std::sqrt(static_cast<double>(options.H)));
    layer.clear_parameter_gradients();
  }
  static std::size_t size(std::int64_t count) { return static_cast<std::size_t>(count); }
};

/// An algorithm may take the sequences under one name of their layout and not under the other.
template <class T>
void open_theirs(const test::Cudnn& cudnn, const Cuda& cuda, CudnnAlgorithm algorithm,
                 CudnnType type, Contender& contender) {
  Record& who = contender.who;
  std::string refusals;
  for (const bool packed : {false, true}) {
    who.layout = packed ? "packed" : "padded";
    try {
      const auto theirs = std::make_shared<Theirs<T>>(cudnn, cuda,
                                                      test::CudnnLstmOptions{.T = who.T,
                                                                             .B = who.B,
                                                                             .I = who.H,
                                                                             .H = who.H,
                                                                             .algorithm = algorithm,
                                                                             .type = type,
                                                                             .packed = packed});
      contender.forward = [theirs] { theirs->layer.forward(theirs->tensors); };
      contender.backward = [theirs] { theirs->layer.backward(theirs->tensors); };
      who.workspace_bytes = theirs->layer.workspace_bytes();
      who.reserve_bytes = theirs->layer.reserve_bytes();
      contender.forward();
      return;
    } catch (const test::CudnnError& refusal) {
      contender.forward = contender.backward = nullptr;
      refusals += fmt::format("{}{}: {}", packed ? "; " : "", who.layout, refusal.what());
    }
  }
  throw test::CudnnError(refusals);
}

}  // namespace

std::vector<Contender> contenders(const Cuda& cuda, const test::Cudnn& cudnn, const Cell& cell,
                                  const std::vector<CudnnType>& types) {
  std::vector<Contender> all;
  for (const CudnnType type : types) {
    Record who;
    who.H = cell.H, who.B = cell.B, who.T = cell.T;
    who.dtype = name(type);
    if (type != CudnnType::fp16) {  // which we have not
      who.library = who.algorithm = "carousel";
      all.push_back({who, [cuda, type](Contender& c) {
                       const bool tf32 = type == CudnnType::tf32;
                       type == CudnnType::bf16 ? open_ours<bf16>(cuda, false, c)
                                               : open_ours<float>(cuda, tf32, c);
                     }});
    }
    for (const CudnnAlgorithm algorithm : test::kCudnnAlgorithms) {
      who.library = "cudnn", who.version = test::cudnn_version();
      who.algorithm = name(algorithm);
      all.push_back({who, [cuda, cudnn, type, algorithm](Contender& c) {
                       switch (type) {
                         case CudnnType::bf16:
                           return open_theirs<bf16>(cudnn, cuda, algorithm, type, c);
                         case CudnnType::fp16:
                           return open_theirs<_Float16>(cudnn, cuda, algorithm, type, c);
                         default:
                           return open_theirs<float>(cudnn, cuda, algorithm, type, c);
                       }
                     }});
    }
  }
  return all;
}

}  // namespace carousel::bench
