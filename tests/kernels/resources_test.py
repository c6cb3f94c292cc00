#!/usr/bin/env python3
"""No kernel of recurrent_sequence keeps values in local memory, on any architecture of the build.

  recurrent_sequence_resources_test.py ROOT NVCC FLAG...    flags: as the library is compiled
"""
import re
import subprocess
import sys
import tempfile

REPORT = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<architecture>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill "
    r"loads.*?Used (?P<registers>\d+) registers", re.S)
# Mangled: each pass, cell, phase and storage type.
CELL_KERNEL = re.compile(r"recurrent_sequence_(?:forward|backward)_kernel")
ARCHITECTURES = {"sm_80", "sm_90a"}


def main():
    root, nvcc, *flags = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, *flags, f"-I{root}", "-DCAROUSEL_CUDA=1", "-O3", "-Xptxas", "-v", "-c",
                   f"{root}/kernels/recurrent_sequence/recurrent_sequence_cuda.cu",
                   "-o", f"{folder}/kernels.o"]
        compiled = subprocess.run(command, capture_output=True, text=True)
    if compiled.returncode != 0:
        print(compiled.stdout + compiled.stderr)
        return 1
    kernels = [m.groupdict() for m in REPORT.finditer(compiled.stdout + compiled.stderr)]
    wrong = [f"{k['kernel']}, {k['architecture']}: {k['stack']} bytes of stack, spills of "
             f"{k['stores']} and {k['loads']} bytes"
             for k in kernels if any(int(k[n]) > 0 for n in ("stack", "stores", "loads"))]
    for architecture in sorted(ARCHITECTURES):
        cells = [k for k in kernels
                 if k["architecture"] == architecture and CELL_KERNEL.search(k["kernel"])]
        if len(cells) < 40:
            wrong.append(f"{architecture}: {len(cells)} kernels of cells, expected at least 40")
            continue
        registers = [int(k["registers"]) for k in cells]
        print(f"{architecture}: {len(cells)} kernels of cells, {min(registers)} to "
              f"{max(registers)} registers")
    print("\n".join(wrong) or f"{len(kernels)} kernels, none uses local memory")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
