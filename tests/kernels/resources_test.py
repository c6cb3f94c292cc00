#!/usr/bin/env python3
"""No kernel of the ops below keeps values in local memory, on any architecture of the build.

  resources_test.py ROOT NVCC...    NVCC: its launcher, itself and its flags, as the library is compiled
"""
import concurrent.futures
import re
import subprocess
import sys
import tempfile

REPORT = re.compile(
    r"Compiling entry function '(?P<kernel>\w+)' for '(?P<architecture>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill "
    r"loads.*?Used (?P<registers>\d+) registers", re.S)
# Mangled names, and how many kernels an op has at the least: each pass, cell or width, and storage type.
OPS = {"recurrent_sequence": (re.compile(r"recurrent_sequence_(?:forward|backward)_kernel"), 40),
       "additive_attention": (re.compile(r"additive_attention_\w*kernel"), 8),
       "attention": (re.compile(r"attention_(?:forward|backward_queries|backward_keys)_kernel"), 46),
       "attention_decode": (re.compile(r"attention_decode_\w*kernel"), 4)}
ARCHITECTURES = {"sm_80", "sm_90a"}


def compile_op(op, root, nvcc):
    """What ptxas says of the op's kernels."""
    with tempfile.TemporaryDirectory() as folder:
        command = [*nvcc, f"-I{root}", "-DCAROUSEL_CUDA=1", "-O3", "-Xptxas", "-v", "-c",
                   f"{root}/kernels/{op}/{op}_cuda.cu", "-o", f"{folder}/kernels.o"]
        compiled = subprocess.run(command, capture_output=True, text=True)
    report = compiled.stdout + compiled.stderr
    if compiled.returncode != 0:
        sys.exit(report)
    return [m.groupdict() for m in REPORT.finditer(report)]


def main():
    root, *nvcc = sys.argv[1:]
    wrong, count = [], 0
    with concurrent.futures.ThreadPoolExecutor() as pool:
        reports = dict(zip(OPS, pool.map(lambda op: compile_op(op, root, nvcc), OPS)))
    for op, (name, least) in OPS.items():
        kernels = reports[op]
        count += len(kernels)
        wrong += [f"{k['kernel']}, {k['architecture']}: {k['stack']} bytes of stack, spills of "
                  f"{k['stores']} and {k['loads']} bytes"
                  for k in kernels if any(int(k[n]) > 0 for n in ("stack", "stores", "loads"))]
        for architecture in sorted(ARCHITECTURES):
            registers = [int(k["registers"]) for k in kernels
                         if k["architecture"] == architecture and name.search(k["kernel"])]
            if len(registers) < least:
                wrong.append(f"{op}, {architecture}: {len(registers)} kernels, expected at least "
                             f"{least}")
                continue
            print(f"{op}, {architecture}: {len(registers)} kernels, {min(registers)} to "
                  f"{max(registers)} registers")
    print("\n".join(wrong) or f"{count} kernels, none uses local memory")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
