#!/usr/bin/env python3
"""Builds the site with Doxygen and fails if it warns, a public name without documentation included.

    check.py DOXYGEN DOXYFILE

Member types, the functions of numbers and operators explain themselves.
"""
import re
import subprocess
import sys

EXPLAINED = {"value_type", "device_type", "T", "Device", "exp", "log", "sqrt", "tanh", "abs"}

output = subprocess.run(sys.argv[1:3], check=True, capture_output=True, text=True).stderr
faults = []
for line in output.splitlines():
    member = re.search(r"Member (operator ?[^\s(]+|\w+).* is not documented", line)
    if line.strip() and not (member and (member[1] in EXPLAINED or re.fullmatch(r"operator\s?[-+*/=<>]+", member[1]))):
        faults.append(line)
print("\n".join(faults) or "every public name is documented")
sys.exit(1 if faults else 0)
