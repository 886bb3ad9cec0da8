"""Checks a built site: ``python tools/check_site.py build/site``.

MkDocs sees only links between Markdown pages, and those as they are written. Here the pages are looked at as
a browser gets them: every link, anchor, picture, script and style has to lead somewhere within the site, and
nothing may be loaded from another host.
"""

from __future__ import annotations

import argparse
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"img": "src", "script": "src", "source": "src", "iframe": "src"}
_FETCHING_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect"}


class _Page(HTMLParser):
    """What a page has and what it refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and "href" in given:
            fetched = _FETCHING_LINKS & set(given.get("rel", "").split())
            (self.loads if fetched else self.links).append(given["href"])
        elif given.get(_LOADED.get(tag, "")):
            self.loads.append(given[_LOADED[tag]])


def problems(site: Path) -> list[str]:
    """What is wrong with a site, a line for each; nothing: all is well.

    Args:
        site: the folder with the pages.
    """
    pages: dict[Path, _Page] = {}
    for file in sorted(site.rglob("*.html")):
        pages[file] = _Page()
        pages[file].feed(file.read_text(encoding="utf-8"))
    found = [] if pages else [f"{site} has no pages"]
    for file, page in pages.items():
        name = file.relative_to(site)
        for address in dict.fromkeys(page.loads):
            parts = urlsplit(address)
            if parts.netloc:
                found.append(f"{name} loads {address} from another host")
            elif parts.scheme != "data" and not _target(site, file, parts.path).is_file():
                found.append(f"{name} loads {address}, which does not exist")
        for address in dict.fromkeys(page.links):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = _target(site, file, parts.path)
            if not target.is_file():
                found.append(f"{name} links to {address}, which does not exist")
            elif parts.fragment and target in pages:
                if unquote(parts.fragment) not in pages[target].anchors | {"__top"}:
                    found.append(f"{name} links to {address}: there is no such anchor")
    return found


def _target(site: Path, page: Path, path: str) -> Path:
    """The file that a path in a page leads to; a path with / in front is one from the root of the site."""
    path = unquote(path)
    target = page if not path else site / path.lstrip("/") if path.startswith("/") else page.parent / path
    target = target.resolve()
    return target / "index.html" if target.is_dir() else target


def main() -> int:
    """The command; 1: something is wrong."""
    parser = argparse.ArgumentParser(prog="python tools/check_site.py", description=__doc__.split("\n\n")[0])
    parser.add_argument("site", type=Path)
    found = problems(parser.parse_args().site.resolve())
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
