#!/usr/bin/env python3
"""The training program takes every command of docs/recipes.md: it reads all options and gets as far as the data.

    test_recipes.py PROGRAM RECIPES
"""
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

program, recipes = sys.argv[1], pathlib.Path(sys.argv[2]).read_text()
commands = re.findall(r"^    (\./run train (?:.*\\\n)*.*)$", recipes, re.MULTILINE)
assert len(commands) == len(re.findall(r"^### ", recipes, re.MULTILINE)) >= 10, commands
with tempfile.TemporaryDirectory() as empty:
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "))[2:]
        for option in ("--device", "--precision"):  # of ./run, and of the program for a GPU
            if option in words:
                place = words.index(option)
                del words[place:place + 2]
        words = [word.replace("DIR", f"{empty}/nowhere") for word in words]
        run = subprocess.run([program, *words], capture_output=True, text=True)
        assert run.returncode == 1 and len(run.stderr.splitlines()) == 1 and "nowhere" in run.stderr, (words, run)
print(f"{len(commands)} commands are read")
