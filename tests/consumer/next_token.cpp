// Prints the tokens that a language model takes for likeliest after a text: next_token RUN TEXT.
#include <algorithm>
#include <cstdio>
#include <exception>
#include <numeric>

#include "models/carousel.h"

int main(int count, char** arguments) try {
  if (count != 3) return std::fprintf(stderr, "usage: next_token RUN TEXT\n"), 2;
  carousel::TrainedModel trained = carousel::load_run(arguments[1]);
  const carousel::Vocabulary& vocabulary = trained.vocabularies()["token"];

  carousel::Generator generator(trained.model(), {});
  generator.begin(vocabulary.encode(arguments[2]).ids);
  const std::vector<double> probability = generator.probabilities().front();

  std::vector<std::size_t> likeliest(probability.size());
  std::iota(likeliest.begin(), likeliest.end(), 0);
  std::sort(likeliest.begin(), likeliest.end(),
            [&](std::size_t a, std::size_t b) { return probability[a] > probability[b]; });
  likeliest.resize(std::min<std::size_t>(likeliest.size(), 5));
  for (const std::size_t id : likeliest) {
    const std::string& token = vocabulary.token(static_cast<std::int32_t>(id));
    std::printf("%.4f  '%s'\n", probability[id], token.c_str());
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
