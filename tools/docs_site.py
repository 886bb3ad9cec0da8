"""Hooks of MkDocs (mkdocs.yml): what the pages need beyond Markdown.

* SECURITY.md, CONTRIBUTING.md and CHANGELOG.md, which stand in the root of the repository, become pages.
* Links to files that are not part of the site lead to the repository, if ``repo_url`` is set, and are plain
  text otherwise.
* Options of commands, such as --format, stay in one line; names of options in tables may be broken after a _.
* A Mermaid diagram is shown as the picture that tools/draw_mermaid.py made of it: nothing is drawn
  or loaded when the page is read.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import TYPE_CHECKING, Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.draw_mermaid import FENCE, picture_of  # noqa: E402

FROM_ROOT = {
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages of the site that stand in the root of the repository."""

_NAME = re.compile(r"(?<=<td><code>)[a-z]+(?:_[a-z]+)+(?=</code>)")
_FLAG = re.compile(r"<code>(-[^<]{1,30})</code>")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from the root of the repository."""
    for name, page in FROM_ROOT.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Put pictures in the place of diagrams, and mend links that leave the folder of the pages."""
    source = {made: name for name, made in FROM_ROOT.items()}.get(page.file.src_uri)
    # Where the text stands in the repository, and where the page stands in the site.
    at = PurePosixPath(source or f"docs/{page.file.src_uri}")
    markdown = FENCE.sub(lambda found: _picture(found[1], page), markdown)
    return _LINK.sub(lambda found: _link(found, at, page, config.repo_url), markdown)


def on_page_content(html: str, page: Page, config: Any, files: Files) -> str:
    """Mark what site.css cannot find by itself: options of commands, words of names, tables of tests."""
    html = _NAME.sub(lambda found: found[0].replace("_", "_<wbr>"), html)
    html = _FLAG.sub(r'<code class="flag">\1</code>', html)
    return f'<div class="tests">{html}</div>' if page.file.src_uri == "compatibility.md" else html


def _picture(diagram: str, page: Page) -> str:
    picture = picture_of(diagram)
    if not picture.exists():
        raise PluginError(f"{page.file.src_uri} has a diagram without a picture: run tools/draw_mermaid.py")
    up = "../" * page.file.src_uri.count("/")
    return f"![diagram]({up}{picture.relative_to(ROOT / 'docs').as_posix()}){{ .diagram }}\n"


def _link(found: re.Match[str], at: PurePosixPath, page: Page, repo_url: str | None) -> str:
    text, target, anchor = found[1], found[2], found[3] or ""
    if "://" in target or target.startswith("mailto:"):
        return found[0]
    in_repository = normpath(str(at.parent / target))
    if in_repository in FROM_ROOT:
        wanted = FROM_ROOT[in_repository]
    elif in_repository.startswith("docs/"):
        wanted = in_repository.removeprefix("docs/")
    elif not (ROOT / in_repository).exists():
        raise PluginError(f"{at} links to {target}, which does not exist")
    elif repo_url:
        return f"[{text}]({repo_url.rstrip('/')}/blob/main/{in_repository}{anchor})"
    else:
        return (
            text
            if text.strip("`").rstrip("/") == in_repository
            else f"{text} (`{in_repository}` in the repository)"
        )
    up = "../" * page.file.src_uri.count("/")
    return f"[{text}]({up}{wanted}{anchor})"
