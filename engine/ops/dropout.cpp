#include "kernels/dropout/dropout.h"

#include "engine/ops.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

struct Masking {
  float drop_probability;
  RandomSource source;
  std::int64_t period = 0;

  Tensor forward(Tape& tape, const Tensor& x) const {
    const Tensor y = tape.tensor(x.shape(), x.dtype());
    visit_float(x.dtype(), [&]<class T>(std::type_identity<T>) {
      run(tape.device(), DropoutForward<T>{.x = x.view<T, 1>(),
                                           .y = y.mutable_view<T, 1>(),
                                           .drop_probability = drop_probability,
                                           .source = source,
                                           .period = period});
    });
    return y;
  }
  void backward(const Tensor& d_y, const GradientTarget& d_x) const {
    visit_float(d_y.dtype(), [&]<class T>(std::type_identity<T>) {
      run(d_y.device(), DropoutBackward<T>{.d_y = d_y.view<T, 1>(),
                                           .d_x = d_x.as<T, 1>(),
                                           .drop_probability = drop_probability,
                                           .source = source,
                                           .period = period});
    });
  }
};

/// An output whose gradient is what the mask leaves of that of `x`.
Var record(Var x, Var y, const Masking& masking, Label label) {
  Tape& tape = x.tape();
  tape.on_backward({y}, [x, y, masking] { masking.backward(y.d(), x.gradient()); });
  tape.label(y, std::move(label));
  return y;
}

/// "dropout after lstm layer 0"; outside of layers "dropout".
std::string name_in(const std::string& op, const char* relation, const Tape& tape) {
  const std::string layer = tape.layer_name();
  return layer.empty() ? op : op + relation + layer;
}

}  // namespace

Var dropout(Var x, float drop_probability, const RandomSource& source, MaskDraw draw) {
  if (drop_probability == 0.0F) return x;
  Masking masking{drop_probability, source};
  if (draw == MaskDraw::once) {
    if (x.shape().rank() != 3 || x.shape()[0] == 0) {
      throw ShapeError("dropout: x is " + x.shape().text() +
                       ", expected [T, B, H] with T > 0 for one mask per sequence");
    }
    masking.period = x.shape()[1] * x.shape()[2];
  }
  Tape& tape = x.tape();
  return record(x, tape.output(masking.forward(tape, x.value()), {x}), masking,
                {.name = name_in("dropout", " after ", tape),
                 .forward = kDropoutTolerance,
                 .backward = kDropoutTolerance});
}

// The mask depends on the element's number alone, so that a float gradient meets the mask of its
// bf16 weight.
Var weight_drop(Var weight, float drop_probability, const RandomSource& source) {
  if (drop_probability == 0.0F) return weight;
  Tape& tape = weight.tape();
  const Masking masking{drop_probability, source};
  // Between precisions it differs by the rounding of a bf16 matrix, before and after it is scaled.
  return record(weight, tape.weight(masking.forward(tape, weight.value()), {weight}), masking,
                {.name = name_in("weight drop", " of ", tape),
                 .axes = Axes::parameter,
                 .forward = {.f32 = {}, .bf16 = {.relative = 0x1p-7}},
                 .backward = kDropoutTolerance});
}

}  // namespace carousel
