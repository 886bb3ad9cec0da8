"""Draws the pictures of docs/delivery.md: python tools/draw_delivery.py.

They have no background of their own, and their colours follow the reader's choice of light or dark.
"""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"

_STYLE = """
text{font:13px DejaVu Sans,Helvetica,Arial,sans-serif;fill:#1f2937}
.h{font-weight:bold}.s{font-size:11.5px;fill:#4b5563}.g{fill:#15803d}.r{fill:#b91c1c}.m{text-anchor:middle}.e{text-anchor:end}
.line{stroke:#64748b;stroke-width:1.4;fill:none}.dash{stroke-dasharray:5 4}.bad{stroke:#b91c1c}
.good{stroke:#15803d}
.box{fill:#eef2f7;stroke:#64748b;stroke-width:1.2}.ok{fill:#dcfce7;stroke:#15803d}.no{fill:#fee2e2;stroke:#b91c1c}
.maybe{fill:#fef3c7;stroke:#b45309}
@media (prefers-color-scheme: dark){
text{fill:#e2e8f0}.s{fill:#b6c0cf}.g{fill:#4ade80}.r{fill:#f87171}.line{stroke:#94a3b8}
.bad{stroke:#f87171}.good{stroke:#4ade80}
.box{fill:#2a3446;stroke:#94a3b8}.ok{fill:#14432a;stroke:#4ade80}.no{fill:#4c1d1d;stroke:#f87171}
.maybe{fill:#45320c;stroke:#fbbf24}}
"""


class Picture:
    """An SVG picture that grows by calls."""

    def __init__(self, width: int, height: int, label: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" role="img" aria-label="{label}"><style>{_STYLE}</style>',
            '<defs><marker id="to" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="#7c8798"/></marker></defs>',
        ]

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        """A line of text; kinds: h heading, s small, g good, r bad, m centred, e ends at x."""
        self._parts.append(f'<text x="{x}" y="{y}" class="{kind}">{text}</text>')

    def box(self, x: float, y: float, width: float, height: float, text: str = "", kind: str = "box") -> None:
        """A box with a text in it, lines divided by |."""
        self._parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" class="{kind}"/>')
        lines = text.split("|") if text else []
        for number, line in enumerate(lines):
            at = y + height / 2 + 4.5 + (number - (len(lines) - 1) / 2) * 16
            self.text(x + width / 2, at, line, "m" if number == 0 else "m s")

    def arrow(self, x1: float, y1: float, x2: float, y2: float, kind: str = "", head: bool = True) -> None:
        """A line, with a head at its end unless it is lost on the way; kinds: dash, bad, good."""
        end = ' marker-end="url(#to)"' if head else ""
        self._parts.append(f'<path d="M{x1} {y1}L{x2} {y2}" class="line {kind}"{end}/>')

    def cross(self, x: float, y: float) -> None:
        """Where something is lost."""
        self._parts.append(
            f'<path d="M{x - 6} {y - 6}L{x + 6} {y + 6}M{x - 6} {y + 6}L{x + 6} {y - 6}" class="line bad" '
            'style="stroke-width:2.6"/>'
        )

    def save(self, name: str) -> None:
        """Write it into the folder of the pages."""
        (DOCS / name).write_text("\n".join([*self._parts, "</svg>"]) + "\n", encoding="utf-8")


def outcomes() -> None:
    """From send() to one of two ends."""
    p = Picture(760, 250, "A record is acknowledged, or fails with an error that says whether it was written")
    p.box(10, 95, 110, 50, "send()")
    p.box(170, 95, 130, 50, "open batch|linger_ms, batch_size")
    p.box(350, 95, 120, 50, "in flight|sequence numbers")
    p.box(556, 20, 198, 50, "acknowledged|offset is known", "ok")
    p.box(556, 95, 198, 50, "failed: persisted = 'possibly'|sent, no answer came", "maybe")
    p.box(556, 170, 198, 50, "failed: persisted = 'no'|never sent, or refused", "no")
    p.arrow(120, 120, 168, 120)
    p.arrow(300, 120, 348, 120)
    p.arrow(470, 108, 554, 50)
    p.arrow(470, 120, 554, 120)
    p.arrow(470, 132, 554, 188)
    p.arrow(235, 145, 552, 205, "dash")
    p.text(410, 75, "retries: until", "m s")
    p.text(410, 89, "delivery_timeout_ms", "m s")
    p.text(235, 172, "expired", "m s")
    p.text(
        10, 240, "Each record ends in exactly one of the boxes on the right, within delivery_timeout_ms.", "s"
    )
    p.save("delivery-outcomes.svg")


def acks() -> None:
    """When the acknowledgement comes."""
    p = Picture(760, 255, "acks: 0 does not wait, 1 waits for the leader, all for the in-sync replicas")
    for column, (name, lost) in enumerate(
        [
            ("acks=0", "lost if anything fails, unnoticed"),
            ("acks=1", "lost if the leader fails now"),
            ("acks='all'", "survives the loss of the leader"),
        ]
    ):
        x = 10 + column * 255
        p.text(x + 115, 22, name, "h m")
        p.box(x, 40, 90, 40, "producer")
        p.box(x + 140, 40, 90, 40, "leader", "ok" if column else "box")
        p.box(x + 140, 140, 90, 40, "follower", "ok" if column == 2 else "box")
        p.arrow(x + 90, 52, x + 138, 52)
        p.arrow(x + 185, 80, x + 185, 138, "" if column == 2 else "dash")
        if column == 0:
            p.text(x + 45, 100, "done at once", "m s")
        else:
            p.arrow(x + 140, 68, x + 92, 68, "good")
            p.text(x + 45, 100, "done after this", "m s")
        if column == 2:
            p.arrow(x + 205, 140, x + 205, 82, "good")
        p.text(x + 115, 215, lost, "m s" + (" g" if column == 2 else " r"))
    p.text(10, 245, "Green boxes have the record when send()'s future is done. Dashed: copied later.", "s")
    p.save("delivery-acks.svg")


def lost_answer() -> None:
    """A lost answer, without and with idempotence."""
    p = Picture(760, 330, "A lost answer makes a duplicate without idempotence, and none with it")
    for column, idempotent in enumerate((False, True)):
        x = 10 + column * 385
        p.text(x + 170, 20, f"enable_idempotence={idempotent}", "h m")
        p.text(x + 30, 46, "producer", "m")
        p.text(x + 290, 46, "leader", "m")
        p.arrow(x + 30, 54, x + 30, 300, head=False)
        p.arrow(x + 290, 54, x + 290, 300, head=False)
        batch = "batch, sequence 7" if idempotent else "batch"
        p.text(x + 160, 74, batch, "m s")
        p.arrow(x + 30, 80, x + 288, 92)
        p.text(x + 284, 112, "written", "e s g")
        p.arrow(x + 290, 122, x + 150, 130, "bad", head=False)
        p.cross(x + 145, 130)
        p.text(x + 75, 134, "answer lost", "m s r")
        p.text(x + 160, 176, f"again: {batch}", "m s")
        p.arrow(x + 30, 182, x + 288, 194)
        if idempotent:
            p.text(x + 284, 212, "known: not written", "e s g")
        else:
            p.text(x + 284, 212, "written again", "e s r")
        p.arrow(x + 290, 236, x + 32, 248, "good")
        p.text(x + 120, 236, "acknowledged", "m s")
        p.text(x + 30, 322, "in the log: ", "s")
        for copy in range(1 if idempotent else 2):
            p.box(x + 105 + copy * 70, 306, 62, 22, "batch", "ok" if copy == 0 else "no")
    p.save("delivery-idempotence.svg")


def transaction() -> None:
    """What readers see of a committed and of an aborted transaction."""
    p = Picture(760, 215, "Committed records are visible together, aborted ones never to read_committed")
    for row, partition in enumerate(("orders 0", "audit 0")):
        y = 40 + row * 50
        p.text(10, y + 22, partition)
        for number in range(2):
            p.box(100 + number * 62, y, 58, 34, f"A{row * 2 + number + 1}", "ok")
        p.box(224, y, 70, 34, "commit")
        for number in range(2):
            p.box(310 + number * 62, y, 58, 34, f"B{row * 2 + number + 1}", "no")
        p.box(434, y, 70, 34, "abort")
        p.box(520, y, 58, 34, f"C{row + 1}", "maybe")
    p.text(197, 28, "transaction A", "m s")
    p.text(407, 28, "transaction B", "m s")
    p.text(549, 28, "C, open", "m s")
    p.text(10, 160, "read_committed:", "")
    p.text(150, 160, "A1 A2 A3 A4, all from the commit on; nothing of B; of C nothing yet", "g")
    p.text(10, 184, "read_uncommitted:", "")
    p.text(150, 184, "everything, as soon as it is written", "r")
    p.text(10, 207, "Offsets of a consumer group that are sent with a transaction are part of it.", "s")
    p.save("delivery-transaction.svg")


def main() -> None:
    """Draw all."""
    outcomes()
    acks()
    lost_answer()
    transaction()


if __name__ == "__main__":
    main()
