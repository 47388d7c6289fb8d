#!/usr/bin/env python3
"""Builds the site with Doxygen and fails if it warns, a public name without documentation included.

    check.py DOXYGEN DOXYFILE ROOT SITE

ROOT is the tree, SITE the folder of the site, with the HTML and with the XML, for what Doxygen does not warn of: values of
enumerations.

Member types, deduction guides, the functions of numbers, operators, and types of elements explain themselves; the
macros that make up the name of the inline namespace are nobody else's.
"""
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree

import finish_site

EXPLAINED = {"value_type", "device_type", "T", "Device", "exp", "log", "sqrt", "tanh", "abs", "Dtype"}


def explains_itself(warning):
    """Whether Doxygen's warning is of a name that needs no words."""
    member = re.search(r"Member (operator ?[^\s(]+|\w+).* is not documented", warning)
    return member and (member[1] in EXPLAINED or ") -> " in warning or
                       re.fullmatch(r"operator\s?[-+*/=<>]+|SD_ABI_\w+", member[1]))


def undocumented_values(path):
    """The values of enumerations without words in a file of Doxygen's XML."""
    for enumeration in xml.etree.ElementTree.parse(path).iter("memberdef"):
        name = enumeration.findtext("name")
        for value in enumeration.iter("enumvalue") if name not in EXPLAINED else ():
            parts = (value.find(part) for part in ("briefdescription", "detaileddescription"))
            if not any("".join(part.itertext()).strip() for part in parts):
                yield f"{name}::{value.findtext('name')} is not documented"


warnings = subprocess.run(sys.argv[1:3], check=True, capture_output=True, text=True).stderr.splitlines()
faults = [line for line in warnings if line.strip() and not explains_itself(line)]
root, site = map(pathlib.Path, sys.argv[3:5])
for path in sorted((site / "xml").glob("*.xml")):
    faults += undocumented_values(path)
finish_site.finish(root, site)
print("\n".join(faults) or "every public name is documented")
sys.exit(1 if faults else 0)
