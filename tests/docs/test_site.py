"""tools/check_site.py, which `make docs` runs over the pages it built."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.check_site import problems

INDEX = """
<link rel="stylesheet" href="site.css"><link rel="canonical" href="https://example.org/">
<h1 id="start">Start</h1><a href="#start">here</a><a href="deep/page.html#part%20two">there</a>
<a href="https://example.org/x">elsewhere</a><a href="mailto:a@example.org">write</a>
<img src="pictures/a.svg"><img src="data:image/svg+xml,x">
"""
PAGE = """
<h2 id="part two">Two</h2><a href="../index.html">up</a><a href="..">up</a><a href="/index.html">root</a>
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, text in {
        "index.html": INDEX,
        "deep/page.html": PAGE,
        "site.css": "",
        "pictures/a.svg": "<svg/>",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_sound_site(site: Path) -> None:
    assert problems(site) == []


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ('<a href="gone.html">x</a>', "links to gone.html, which does not exist"),
        ('<a href="#gone">x</a>', "links to #gone: there is no such anchor"),
        ('<a href="../index.html#gone">x</a>', "links to ../index.html#gone: there is no such anchor"),
        ('<img src="gone.png">', "loads gone.png, which does not exist"),
        ('<script src="gone.js"></script>', "loads gone.js, which does not exist"),
        ('<link rel="stylesheet" href="gone.css">', "loads gone.css, which does not exist"),
        ('<script src="https://example.org/x.js"></script>', "from another host"),
        ('<link href="//example.org/f" rel="preconnect">', "from another host"),
    ],
)
def test_what_is_broken_is_named_with_its_page(site: Path, added: str, said: str) -> None:
    with (site / "deep/page.html").open("a", encoding="utf-8") as page:
        page.write(added)
    [problem] = problems(site)
    assert problem.startswith("deep")
    assert said in problem


def test_an_empty_folder_is_no_site(tmp_path: Path) -> None:
    assert problems(tmp_path) == [f"{tmp_path} has no pages"]
