#!/usr/bin/env python3
"""Checks that the code which a document quotes stands in the tree.

    check_quotes.py ROOT FILE.md...

A quote is a block of code after a line `<!-- from PATH -->`; its lines stand one after the other in that file, whatever
their indentation.
"""
import pathlib
import re
import sys

QUOTE = re.compile(r"^<!-- from (\S+) -->\n```cpp\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def lines_of(text):
    return "\n".join(line.strip() for line in text.splitlines())


root, faults, quotes = pathlib.Path(sys.argv[1]), [], 0
for document in map(pathlib.Path, sys.argv[2:]):
    text = document.read_text()
    for path, quote in QUOTE.findall(text):
        quotes += 1
        if f"\n{lines_of(quote)}\n" not in f"\n{lines_of((root / path).read_text())}\n":
            faults.append(f"{document}: {path} does not have\n{quote}")
    if len(re.findall(r"^<!-- from ", text, re.MULTILINE)) != len(QUOTE.findall(text)):
        faults.append(f"{document}: a line <!-- from ... --> without a block of code after it")
print("\n".join(faults) or f"{quotes} quotes stand in the tree")
sys.exit(1 if faults else 0)
