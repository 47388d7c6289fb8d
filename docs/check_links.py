#!/usr/bin/env python3
"""Checks that the links of documents lead somewhere: each relative one to a file, each anchor to a heading.

    check_links.py FILE...

Of Markdown these are links and pictures, with the anchors that GitHub makes of headings; of HTML `href`, `src` and `id`.
Links to other hosts are left alone.
"""
import collections
import pathlib
import re
import sys

FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
CODE = re.compile(r"(`+).+?\1", re.DOTALL)
LINK = re.compile(r"\]\(\s*([^)\s]+)")
HEADING = re.compile(r"^#+ +(.*?) *#*$", re.MULTILINE)
ELSEWHERE = re.compile(r"[a-z]+:")


def links_of(path):
    """The links of a file."""
    if path.suffix == ".html":
        return re.findall(r'\s(?:href|src)="([^"]*)"', path.read_text())
    return LINK.findall(CODE.sub("", FENCE.sub("", path.read_text())))


def anchors_of(path):
    """What a link may have after its #."""
    if path.suffix == ".html":
        return set(re.findall(r'\sid="([^"]*)"', path.read_text()))
    anchors, seen = set(), collections.Counter()
    for heading in HEADING.findall(FENCE.sub("", path.read_text())):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        anchors.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return anchors


def fault_of(document, link):
    """What is wrong with a link, or None."""
    name, _, anchor = link.partition("#")
    target = document.parent / name if name else document
    if not target.exists():
        return f"{document}: {link}: there is no {name}"
    if anchor and (target.is_dir() or anchor not in anchors_of(target)):
        return f"{document}: {link}: {target} has no heading {anchor}"
    return None


documents = [pathlib.Path(name) for name in sys.argv[1:]]
links = [(document, link) for document in documents for link in links_of(document) if not ELSEWHERE.match(link)]
faults = [fault for fault in (fault_of(document, link) for document, link in links) if fault]
print("\n".join(faults) or f"{len(links)} links of {len(documents)} documents lead somewhere")
sys.exit(1 if faults or not links else 0)
