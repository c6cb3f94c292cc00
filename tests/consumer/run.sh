#!/usr/bin/env bash
# Installs this build into a folder of its own, then configures, builds and runs two programs that know
# nothing but find_package(Carousel), and the installed driver on the run that one of them has made.
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
expect() {  # PATTERN COMMAND…: the command's output has the pattern
  local pattern=$1 && shift
  "$@" >"$scratch/log" 2>&1 && grep -q "$pattern" "$scratch/log" && return
  echo "expected '$pattern' of: $*" >&2 && cat "$scratch/log" >&2 && exit 1
}
expect '^step 20: [0-9.]* nats' "$scratch/build/train" "$scratch/config.toml" "$scratch/run"
expect "^0\.[0-9]*  '.'$" "$scratch/build/next_token" "$scratch/run" "the ships s"
carousel=$scratch/prefix/bin/carousel
expect 'recurrent_lm' "$carousel" models
expect '^the ships' "$carousel" generate "$scratch/run" --prompt "the ships" --tokens 10
expect 'nats' "$carousel" eval "$scratch/run" --data "$scratch/text.txt"
expect 'done after 24 steps' "$carousel" resume "$scratch/run" --set train.steps=24
# The shipped configs know their text where it was made before the installation.
configs=$scratch/prefix/share/carousel/models/configs
[ ! -s "$here/../../data/kjv.txt" ] ||
  expect 'done after 1 steps\?' "$carousel" train "$configs/quickstart.toml" --out "$scratch/kjv" --set train.steps=1
