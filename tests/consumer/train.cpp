// Trains as a config says and tells the loss of each report: train CONFIG RUN. The run is one for
// the driver too: `carousel generate RUN`, `carousel resume RUN`.
#include <cstdio>
#include <exception>

#include "models/carousel.h"

namespace {

struct Teller final : carousel::TrainObserver {
  void on_report(const carousel::Report& report) override {
    std::printf("step %ld: %.4f nats per token\n", static_cast<long>(report.step), report.loss);
  }
};

}  // namespace

int main(int count, char** arguments) try {
  if (count != 3) return std::fprintf(stderr, "usage: train CONFIG RUN\n"), 2;
  const carousel::RunConfig config = carousel::read_config(arguments[1]);
  Teller teller;
  carousel::train(config, arguments[2], {.observer = &teller});
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
