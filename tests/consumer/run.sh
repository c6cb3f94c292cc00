#!/usr/bin/env bash
# Installs this build into a folder of its own, then configures, builds and runs a program of ten lines
# that knows nothing but find_package(Carousel).
#   run.sh BUILD_FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cmake --install "$1" --prefix "$scratch/prefix" >/dev/null
cmake -G Ninja -S "$here" -B "$scratch/build" -DCMAKE_PREFIX_PATH="$scratch/prefix" \
  -DCMAKE_BUILD_TYPE=Release >"$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
cmake --build "$scratch/build" >"$scratch/log" 2>&1 || { cat "$scratch/log"; exit 1; }
printf '%s\n' '[model]' 'kind = "recurrent_lm"' 'hidden = 16' '[data]' 'text = "text.txt"' \
  '[train]' 'steps = 20' 'batch = 4' 'window = 8' >"$scratch/config.toml"
for i in $(seq 40); do echo "the ships sail round the isle of $i"; done >"$scratch/text.txt"
"$scratch/build/consumer" "$scratch/config.toml" "$scratch/run"
"$scratch/prefix/bin/carousel" models
