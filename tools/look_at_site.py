"""Looks at a built site in a browser: ``python tools/look_at_site.py build/site``.

Every page is loaded in light and in dark, as wide as a telephone. Errors in the console, requests that fail,
pages that scroll sideways, and text without enough contrast (WCAG AA) are printed; then it ends
with 1.

It takes ``pip install --group docs-browser``, and Chromium or Chrome.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

_TELEPHONE: Any = {"width": 390, "height": 844}
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_QUIET = [
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_TOO_WIDE = "() => document.documentElement.scrollWidth > window.innerWidth"
# Each colour that visible text has, with what is behind it; how a contrast is computed is WCAG's.
_CONTRAST = """() => {
    const pixel = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true})
    const painted = (...colours) => {
        pixel.clearRect(0, 0, 1, 1)
        for (const colour of colours) {
            pixel.fillStyle = colour
            pixel.fillRect(0, 0, 1, 1)
        }
        return pixel.getImageData(0, 0, 1, 1).data
    }
    const luminance = (rgb) => {
        const [r, g, b] = [...rgb].map((v) => v / 255).map((v) =>
            v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const backgrounds = (element) => element === null
        ? ["white"]
        : [...backgrounds(element.parentElement), getComputedStyle(element).backgroundColor]
    const seen = new Map()
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement
        const visible = {opacityProperty: true, visibilityProperty: true}
        if (!texts.currentNode.data.trim() || !element.checkVisibility(visible)) continue
        const {color, fontSize, fontWeight} = getComputedStyle(element)
        const size = parseFloat(fontSize)
        const needed = size >= 24 || (size >= 18.66 && fontWeight >= 700) ? 3 : 4.5
        const behind = backgrounds(element)
        const key = [color, ...behind, needed].join()
        if (!seen.has(key)) seen.set(key, {color, behind, needed, text: texts.currentNode.data.trim()})
    }
    const found = []
    for (const {color, behind, needed, text} of seen.values()) {
        const [one, other] = [luminance(painted(...behind)), luminance(painted(...behind, color))]
        const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05)
        if (contrast < needed) {
            found.push(`${color} has a contrast of ${contrast.toFixed(2)}: ${text.slice(0, 60)}`)
        }
    }
    return found
}"""


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a request that fails is seen in the browser."""


@contextmanager
def _served(site: Path) -> Iterator[str]:
    """The site, on a port of this machine."""
    handler = functools.partial(_Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _problems_of(page: Page, address: str) -> list[str]:
    """What is wrong with a page, a line for each."""
    found: list[str] = []
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lambda request: found.append(f"{request.url} failed"))
    page.goto(address, wait_until="load")
    if page.evaluate(_TOO_WIDE):
        found.append("scrolls sideways")
    found += page.evaluate(_CONTRAST)
    return found


def problems(site: Path, chromium: str) -> list[str]:
    """What is wrong with a site, a line for each; nothing: all is well.

    Args:
        site: the folder with the pages.
        chromium: the browser's program.
    """
    pages = sorted(file.relative_to(site).as_posix() for file in site.rglob("*.html"))
    found = [] if pages else [f"{site} has no pages"]
    with _served(site) as root, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=_QUIET)
        schemes: tuple[Any, ...] = ("light", "dark")
        for scheme in schemes:
            for name in pages:
                with browser.new_page(color_scheme=scheme, viewport=_TELEPHONE) as page:
                    for problem in _problems_of(page, f"{root}/{name}"):
                        found.append(f"{name}, {scheme}: {problem}")
        browser.close()
    return found


def main() -> int:
    """The command; 1: something is wrong."""
    installed = next(filter(None, map(shutil.which, _BROWSERS)), None)
    about = __doc__.split("\n\n")[0]
    parser = argparse.ArgumentParser(prog="python tools/look_at_site.py", description=about)
    parser.add_argument("site", type=Path)
    parser.add_argument("--chromium", default=installed, required=installed is None)
    given = parser.parse_args()
    found = problems(given.site.resolve(), given.chromium)
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
