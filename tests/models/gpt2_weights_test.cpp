// Files of GPT-2's weights: against what Hugging Face's GPT-2 computed (tests/golden/gpt2.json), and
// against the same weights loaded from a file of our own.
#include "models/transformer/gpt2_weights.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/training/training_run.h"
#include "kernels/common/check.h"
#include "models/transformer/transformer_lm.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/files.h"
#include "tests/support/golden.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::as_double;
using test::Golden;
using Config = TransformerLmConfig;
using Tensors = std::map<std::string, Tensor>;

bool is_product(const std::string& name) {
  return name.ends_with("c_attn.weight") || name.ends_with("c_proj.weight") ||
         name.ends_with("c_fc.weight");
}

Tensor transposed(const Tensor& tensor) {
  const std::int64_t rows = tensor.shape()[0], columns = tensor.shape()[1];
  const std::vector<float> values = host_floats(tensor);
  std::vector<float> turned;
  for (std::int64_t c = 0; c < columns; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) {
      turned.push_back(values[static_cast<std::size_t>(r * columns + c)]);
    }
  }
  return test::tensor_of(Cpu{}, {columns, rows}, turned);
}

class Gpt2Weights : public testing::TestWithParam<Device> {
 protected:
  const Device device = GetParam();
  const test::TemporaryFolder folder;
  const std::string path = folder.path("gpt2.safetensors");

  /// All matrices but those of attention's door are square.
  static Config config() {
    return {.vocabulary = 7, .context = 5, .layers = 2, .heads = 2, .embed = 4, .hidden = 4};
  }

  SafetensorsFile write(const Tensors& tensors) const {
    std::vector<NamedTensor> named;
    for (const auto& [name, tensor] : tensors) named.push_back({name, tensor});
    write_safetensors(path, named, {});
    return SafetensorsFile(path);
  }
  void read(const Tensors& tensors, TransformerLm& model) const {
    const SafetensorsFile file = write(tensors);
    read_gpt2_weights(file, named_weights(model.parameters()));
    model.parameters().refresh_working();
  }
  std::string refused(const Tensors& tensors) const {
    TransformerLm model(config(), device, DType::f32, /*seed=*/1);
    const auto before = model.parameters().flat_weights();
    const std::vector<float> values = host_floats(before);
    const std::string text = test::error_text<FormatError>([&] { read(tensors, model); });
    EXPECT_EQ(host_floats(before), values) << "weights were touched";
    return text.starts_with(path + ": ") ? text.substr(path.size() + 2) : "?" + text;
  }
  /// The weights of a model by their names, as it stores them itself.
  Tensors own(const Config& of) const {
    TransformerLm model(of, device, DType::f32, /*seed=*/5);
    Tensors tensors;
    for (const NamedTensor& t : named_weights(model.parameters())) tensors[t.name] = t.tensor;
    return tensors;
  }
  static Tensors as_gpt2(Tensors tensors) {
    for (auto& [name, tensor] : tensors) {
      if (is_product(name)) tensor = transposed(tensor);
    }
    return tensors;
  }
  static Tensors without_prefix(const Tensors& tensors) {
    Tensors result;
    for (const auto& [name, tensor] : tensors) {
      result[name.starts_with("transformer.") ? name.substr(12) : name] = tensor;
    }
    return result;
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, Gpt2Weights, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(Gpt2Weights, GiveTheLogitsOfGpt2) {
  const Golden golden("gpt2");
  Config config = Gpt2Weights::config();
  config.feed_forward = Config::FeedForward::gelu_tanh;
  Tensors tensors;
  for (const auto& [name, recorded] : golden.given) {
    if (name == "token") continue;
    tensors[name] = Tensor(device, recorded.shape(), DType::f32);
    test::write(tensors[name], recorded.values);
  }
  for (const Tensors& file : {tensors, without_prefix(tensors)}) {
    TransformerLm model(config, device, DType::f32, /*seed=*/1);
    read(file, model);
    const Tensor token = golden.tensor("token", device, DType::i32);
    Arena arena(device);
    Tape tape(arena, /*recording=*/false);
    const State state = model.decoding_state(token.shape()[1]);
    const auto T = static_cast<std::size_t>(token.shape()[0]);
    for (std::size_t t = 0; t < T; ++t) {
      Pass pass(tape);
      const Field step{"token", token.slice(static_cast<std::int64_t>(t), 1)};
      const std::vector<double> logits = as_double(model.logits(pass, step, state));
      pass.finish();
      EXPECT_TRUE(test::close(logits, test::part(golden.values.at("logits").values, t, T),
                              {.absolute = 1e-5, .relative = 1e-5}));
    }
  }
}

TEST_P(Gpt2Weights, AreThoseOfTheSameModelLoadedPlainly) {
  Config wide = config(), shared = config(), untied = config(), bare = config();
  wide.hidden = 0;
  shared.kv_heads = 1;
  untied.tie_weights = false;
  bare.bias = false;
  bare.feed_forward = Config::FeedForward::swiglu;
  for (const Config& each : {config(), wide, shared, untied, bare}) {
    const Tensors plain = own(each);
    Tensors masked = without_prefix(as_gpt2(plain));
    masked["h.1.attn.bias"] = Tensor(Cpu{}, {1, 1, 5, 5}, DType::f32);
    masked["h.1.attn.masked_bias"] = Tensor(Cpu{}, {1}, DType::f32);
    for (const Tensors& file : {plain, without_prefix(plain), as_gpt2(plain), masked}) {
      TransformerLm model(each, device, DType::f32, /*seed=*/1);
      read(file, model);
      for (const NamedTensor& t : named_weights(model.parameters())) {
        EXPECT_EQ(host_floats(t.tensor), host_floats(plain.at(t.name))) << t.name;
      }
    }
  }
}

TEST_P(Gpt2Weights, MayRepeatATiedMatrixAndNoOther) {
  Tensors tensors = as_gpt2(own(config()));
  tensors["lm_head.weight"] = tensors.at("transformer.wte.weight");
  TransformerLm model(config(), device, DType::f32, /*seed=*/1);
  EXPECT_NO_THROW(read(tensors, model));
  tensors["lm_head.weight"] = test::tensor_of(Cpu{}, {7, 4}, std::vector<float>(28, 0.5F));
  EXPECT_EQ(refused(tensors),
            "'lm_head.weight' is not 'transformer.wte.weight', and model.tie_weights is true, "
            "expected the same numbers");
}

TEST_P(Gpt2Weights, AreRefusedInOneLineBeforeAnyIsWritten) {
  const Tensors good = as_gpt2(own(config())), plain = own(config());
  const auto with = [&](const std::function<void(Tensors&)>& change) {
    Tensors tensors = good;
    change(tensors);
    return refused(tensors);
  };
  const std::string last = "transformer.h.1.attn.c_attn.weight";
  EXPECT_EQ(with([&](Tensors& t) { t[last] = plain.at(last); }),
            "'transformer.h.0.attn.c_attn.weight' is F32 [4, 12] and '" + last +
                "' is F32 [12, 4], expected all matrices one way");
  Tensors other = plain;
  other[last] = good.at(last);
  EXPECT_EQ(refused(other), "'transformer.h.0.attn.c_attn.weight' is F32 [12, 4] and '" + last +
                                "' is F32 [4, 12], expected all matrices one way");
  EXPECT_EQ(with([&](Tensors& t) {
              t[last] = Tensor(Cpu{}, {4, 8}, DType::f32);
            }),
            "'" + last + "' is F32 [4, 8], expected F32 [4, 12]");
  EXPECT_EQ(with([&](Tensors& t) {
              t[last] = Tensor(Cpu{}, {4, 12}, DType::i32);
            }),
            "'" + last + "' is I32 [4, 12], expected F32 [4, 12]");
  EXPECT_EQ(with([&](Tensors& t) { t.erase(last); }), "missing " + last);
  EXPECT_EQ(with([&](Tensors& t) { t["extra"] = t.at(last); }), "unexpected extra");
  EXPECT_EQ(with([&](Tensors& t) { t["transformer.h.0.attn.bias"] = t.at(last); }),
            "unexpected transformer.h.0.attn.bias")
      << "a mask has four dimensions";
}

}  // namespace
}  // namespace carousel
