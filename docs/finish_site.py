"""What Doxygen leaves to do at the site: links of the guides are made for the tree, in which the site does not stand.

A link to a header goes to its page, one to a guide to that guide; the page `docs/play` is copied. What else is in the
tree is not in the site, so the link goes and its text stays.
"""
import pathlib
import posixpath
import re
import shutil
import xml.etree.ElementTree

LINK = re.compile(r'<a(?: class="\w+")? href="([^"#:]+)(?:#[^"]*)?">(.*?)</a>', re.DOTALL)


def sources(xml_folder):
    """Of each header and guide, by its path in the tree, the site's page."""
    pages = {}
    for path in sorted(xml_folder.glob("*.xml")):
        compound = xml.etree.ElementTree.parse(path).find("compounddef")
        if compound is None or compound.find("location") is None:
            continue
        name, source = compound.get("id"), compound.find("location").get("file")
        if compound.get("kind") == "page":
            pages[source] = "index.html" if name == "indexpage" else f"{name}.html"
        elif compound.get("kind") == "file" and source.endswith(".hpp"):
            pages[source] = f"{name}_source.html"
    return pages


def finish(root, site):
    """Finishes the site of the tree `root`."""
    html, pages = site / "html", sources(site / "xml")
    shutil.copytree(root / "docs/play", html / "play", dirs_exist_ok=True)
    pages["docs/play/index.html"] = "play/index.html"

    for guide, name in pages.items():
        def lead(match):
            if (html / match[1]).exists():
                return match[0]
            target = posixpath.normpath(posixpath.join(posixpath.dirname(guide), match[1]))
            return f'<a href="{pages[target]}">{match[2]}</a>' if target in pages else match[2]

        if guide.endswith(".md"):
            page = html / name
            page.write_text(LINK.sub(lead, page.read_text()))
