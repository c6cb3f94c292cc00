#include <cstdio>

#include "models/lstm_lm.h"

int main() {
  const carousel::Device cpu = carousel::Cpu{};
  carousel::LstmLm model({.vocabulary = 100}, cpu, carousel::DType::f32, /*seed=*/1);
  std::printf("%lld weights\n", static_cast<long long>(model.parameters().element_count()));
  return model.parameters().element_count() == 960100 ? 0 : 1;
}
