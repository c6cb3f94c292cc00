#!/usr/bin/env python3
"""Every pointwise loop of a recurrent cell is vector code: each cell, storage type and pass.

  vector_code_test.py LIBRARY    the static library that holds the loops
"""
import re
import subprocess
import sys

VECTOR = re.compile(r"\tv(?:add|sub|mul|div|fn?m(?:add|sub)\d+)p[sd] .*%[yz]mm")
SCALAR = re.compile(r"\tv(?:add|sub|mul|div|fn?m(?:add|sub)\d+)s[sd] ")
NAME = re.compile(r"^[0-9a-f]+ <void carousel::(forward|backward)_row<(.*?)>\(carousel::Row\w+<.*>:$")
TYPES = ("float", "double", "carousel::bf16")


def main():
    listing = subprocess.run(["objdump", "-dC", "--no-show-raw-insn", sys.argv[1]], check=True,
                             capture_output=True, text=True).stdout
    loops, wrong = {}, []
    for function in re.split(r"\n\n(?=[0-9a-f]+ <)", listing):
        name, _, code = function.strip().partition("\n")
        if not (match := NAME.match(name)):
            continue
        passed, arguments = match.groups()
        cell, phase, options, stored = arguments.rsplit(", ", 3)
        loops.setdefault(cell, set()).add((passed, phase, options, stored))
        vectors, scalars = len(VECTOR.findall(code)), len(SCALAR.findall(code))
        # Rows end in a remainder of scalar code, which is unrolled at most seven times.
        if vectors == 0 or 8 * vectors < scalars or "\tcall " in code:
            wrong.append(f"{name}\n  {vectors} vector and {scalars} scalar instructions")
    for cell, found in loops.items():
        wrong += [f"{cell}: no {passed} loop for {stored}, options {options}"
                  for passed in ("forward", "backward") for stored in TYPES
                  for options in ("false", "true") if (passed, "0", options, stored) not in found]
    if len(loops) < 11:
        wrong.append(f"{len(loops)} cells have loops, expected at least 11: {sorted(loops)}")
    print("\n".join(wrong) or f"{len(loops)} cells, all loops are vector code")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
