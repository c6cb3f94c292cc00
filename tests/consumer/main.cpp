// Trains a language model as a config says, then lets it write: consumer CONFIG RUN.
#include <cstdio>

#include "engine/model/generator.h"
#include "engine/run/trained_model.h"
#include "engine/run/training.h"
#include "models/registry.h"

int main(int, char** arguments) {
  const carousel::RunConfig config(arguments[1], carousel::model_registry());
  carousel::train(config, arguments[2]);
  carousel::TrainedModel trained(arguments[2], carousel::model_registry());
  const carousel::Vocabulary& vocabulary = trained.vocabularies()["token"];
  carousel::Generator generator(trained.model(), {.temperature = 0.5});
  generator.begin(vocabulary.encode("the ").ids);
  for (int i = 0; i < 40; ++i) std::fputs(vocabulary.decode(generator.next()).c_str(), stdout);
  std::puts("");
}
