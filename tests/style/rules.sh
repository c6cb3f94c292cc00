#!/usr/bin/env bash
# What no compiler checks. Each rule is a search that must find nothing; what it finds is printed
# with file, line and the rule's reason.
set -uo pipefail
cd "$(dirname "$0")/../.."

failures=0
sources() { git ls-files -co --exclude-standard -- "$@"; }

rule() {  # rule REASON PATTERN FILES...: PATTERN is an extended regular expression
  local reason=$1 pattern=$2 found
  shift 2
  [ $# -gt 0 ] || return 0
  found=$(grep -nE -- "$pattern" "$@" /dev/null)
  if [ -n "$found" ]; then
    printf '%s\n  rule: %s\n' "$found" "$reason"
    failures=$((failures + 1))
  fi
}
except() { grep -vE -- "$1" || true; }

mapfile -t code < <(sources '*.h' '*.cpp' '*.cu' '*.cuh')
mapfile -t device < <(sources 'kernels/*.cu' 'kernels/*.cuh')
mapfile -t no_shared < <(printf '%s\n' "${device[@]}" | except 'common/cuda/shared.cuh')
mapfile -t no_ptx < <(printf '%s\n' "${code[@]}" | except 'common/cuda/ptx.cuh')
mapfile -t no_memory < <(printf '%s\n' "${code[@]}" | except 'common/cuda/(memory|context)|tests/')
mapfile -t no_tests < <(printf '%s\n' "${code[@]}" | except '^tests/|common/cuda/context.cu$')
mapfile -t host < <(sources '*.h' '*.cpp' | except '^tests/emulation/')
mapfile -t kernels < <(sources 'kernels/*')
mapfile -t engine < <(sources 'engine/*')
mapfile -t models < <(sources 'models/*.h' 'models/*.cpp')
mapfile -t builds < <(sources '*.txt' '*.cmake' '*.json')

rule 'kernels start through launch() alone' '<<<' "${device[@]}"
rule 'shared memory is one struct through dynamic_shared<S>()' '__shared__' "${no_shared[@]}"
rule 'variants are template parameters chosen on the host' '__CUDA_ARCH__' "${no_ptx[@]}"
rule 'device memory has one owner, class Memory' 'cuda(Malloc|Free)' "${no_memory[@]}"
rule 'the host waits in few, named places' 'cudaDeviceSynchronize' "${no_tests[@]}"
rule 'kernels know nothing of the engine' '#include "(engine|models|tools)/' "${kernels[@]}"
rule 'the engine knows no model' '#include "(models|tools)/' "${engine[@]}"
rooms=(tape files config text vectors batches data ops model training comparison run)  # lowest first
for ((i = 0; i + 1 < ${#rooms[@]}; ++i)); do
  mapfile -t room < <(sources "engine/${rooms[i]}/*")
  above=$(IFS='|'; echo "${rooms[*]:i+1}")
  rule "rooms of the engine know only those below them" "#include \"engine/($above)/" "${room[@]}"
done
rule 'models know nothing of the tools' '#include "tools/' "${models[@]}"
rule 'CUDA headers stay in .cu and .cuh' '#include <(cuda|cublas|cub/|thrust)' "${host[@]}"
rule 'sums by atomics change from run to run' 'atomicAdd\([^)]*(float|double)' "${device[@]}"
rule 'NaN must stay visible' 'fast-math|fast_math|-Ofast' "${builds[@]}" "${code[@]}"
rule 'unfinished work is an issue, not a comment' '\b(TODO|FIXME|XXX)\b' "${code[@]}"
rule 'namespaces are named where they are used' '^ *using namespace' "${code[@]}"

for file in "${code[@]}"; do
  lines=$(wc -l <"$file")
  if [ "$lines" -gt 400 ]; then
    echo "$file: $lines lines; a file of more than 400 is two"
    failures=$((failures + 1))
  fi
done

# Every op's files exist (CMake checks) and every op is registered (this checks).
for folder in kernels/*/; do
  op=$(basename "$folder")
  [ "$op" = common ] || grep -qE "^carousel_add_op\($op[ )]" kernels/CMakeLists.txt || {
    echo "kernels/CMakeLists.txt: op '$op' has a folder and is not registered"
    failures=$((failures + 1))
  }
done

if command -v clang-format >/dev/null; then
  clang-format --dry-run -Werror "${code[@]}" || failures=$((failures + 1))
else
  echo 'SKIPPED formatting: no clang-format on PATH'
fi

[ $failures -eq 0 ] || { echo "style: $failures rules broken"; exit 1; }
echo "style: all rules hold over ${#code[@]} files"
