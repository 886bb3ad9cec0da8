"""Makes pictures of the Mermaid diagrams in docs/, for the site: docs/pictures/diagram-*.svg.

    npm install --prefix build/mermaid mermaid@11        once
    python tools/draw_mermaid.py                         needs chromium
    python tools/draw_mermaid.py --check                 exit with 1 if a picture is missing or not used

GitHub draws Mermaid itself; the site must not load the 3 MB of script that it takes. A picture's name has the
hash of its diagram, so that none can be out of date. Colours follow the reader's choice of light or dark.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SCRIPT = ROOT / "build" / "mermaid" / "node_modules" / "mermaid" / "dist" / "mermaid.min.js"
FENCE = re.compile(r"^```mermaid\n(.*?)^```\n", re.MULTILINE | re.DOTALL)

# Colours that occur nowhere else, so that they can be found in the picture: light, dark.
COLOURS = {
    "lineColor": ("#101001", "#64748b", "#94a3b8"),
    "textColor": ("#101002", "#1f2937", "#e2e8f0"),
    "primaryColor": ("#101003", "#e8eef7", "#2a3446"),
    "primaryBorderColor": ("#101004", "#64748b", "#94a3b8"),
    "primaryTextColor": ("#101005", "#1f2937", "#e2e8f0"),
    "clusterBkg": ("#101006", "#f5f5f0", "#1f2530"),
    "clusterBorder": ("#101007", "#a8a29e", "#57606f"),
    "edgeLabelBackground": ("#101008", "#ffffff", "#1e2129"),
}


def picture_of(diagram: str) -> Path:
    """Where the picture of a diagram is."""
    return DOCS / "pictures" / f"diagram-{hashlib.sha256(diagram.encode()).hexdigest()[:12]}.svg"


def diagrams() -> dict[Path, str]:
    """All diagrams, by the file of their picture."""
    found = (text for page in sorted(DOCS.rglob("*.md")) for text in FENCE.findall(page.read_text("utf-8")))
    return {picture_of(text): text for text in found}


def with_both_colours(svg: str) -> str:
    """The picture with colours for light and dark."""
    light, dark = [], []
    for number, (marker, in_light, in_dark) in enumerate(COLOURS.values()):
        svg = re.sub(re.escape(marker), f"var(--c{number})", svg, flags=re.IGNORECASE)
        light.append(f"--c{number}:{in_light}")
        dark.append(f"--c{number}:{in_dark}")
    style = f"svg{{{';'.join(light)}}}@media (prefers-color-scheme: dark){{svg{{{';'.join(dark)}}}}}"
    # Mermaid makes it as wide as the page; an image has to have a size of its own.
    box = re.search(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) ([\d.]+)"', svg)
    if box is None:
        raise ValueError("Mermaid's picture has no viewBox")
    svg = svg.replace('width="100%"', f'width="{box[1]}" height="{box[2]}"', 1)
    return re.sub(r"(<svg[^>]*>)", rf"\1<style>{style}</style>", svg, count=1) + "\n"


def draw(diagram: str, chromium: str) -> str:
    """Draw a diagram with Mermaid in a browser.

    Raises:
        RuntimeError: Mermaid cannot read it, or the browser does not work.
    """
    settings = {
        "startOnLoad": False,
        "theme": "base",
        "htmlLabels": False,
        "flowchart": {"htmlLabels": False},
        "themeVariables": {
            "fontFamily": "DejaVu Sans, Helvetica, Arial, sans-serif",
            **{name: colours[0] for name, colours in COLOURS.items()},
        },
    }
    page = (
        f"<!doctype html><body><pre id=out></pre><script src='{SCRIPT.as_uri()}'></script><script>"
        f"mermaid.initialize({json.dumps(settings)});"
        f"mermaid.render('diagram', {json.dumps(diagram)}).then("
        "r => document.getElementById('out').textContent = 'SVG' + btoa(unescape(encodeURIComponent(r.svg))),"
        "e => document.getElementById('out').textContent = 'ERROR ' + e);</script>"
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(page, encoding="utf-8")
        command = [chromium, "--headless", "--no-sandbox", "--allow-file-access-from-files", "--disable-gpu"]
        command += ["--virtual-time-budget=10000", "--dump-dom", file.as_uri()]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r'<pre id="out">SVG([A-Za-z0-9+/=]+)</pre>', said)
    if found is None:
        raise RuntimeError(f"no picture of this diagram:\n{diagram}\n{said[-500:]}")
    return base64.b64decode(found[1]).decode("utf-8")


def main(arguments: Sequence[str]) -> int:
    """Draw what is missing and remove what is not used, or check; the exit status."""
    parser = argparse.ArgumentParser(description="Draws the Mermaid diagrams in docs/ for the site.")
    parser.add_argument("--check", action="store_true", help="only say whether all pictures are there")
    parser.add_argument("--all", action="store_true", help="draw also those that are there")
    parser.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
    options = parser.parse_args(arguments)
    wanted = diagrams()
    there = set((DOCS / "pictures").glob("diagram-*.svg"))
    if options.check:
        for path in sorted(wanted.keys() ^ there):
            print(f"{path.relative_to(ROOT)}: run python tools/draw_mermaid.py", file=sys.stderr)
        return 1 if wanted.keys() ^ there else 0
    for path in there - wanted.keys():
        path.unlink()
    missing = wanted.keys() if options.all else wanted.keys() - there
    if missing and not SCRIPT.exists():
        print("Mermaid is missing: npm install --prefix build/mermaid mermaid@11", file=sys.stderr)
        return 1
    for path in missing:
        path.parent.mkdir(exist_ok=True)
        path.write_text(with_both_colours(draw(wanted[path], options.chromium)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
