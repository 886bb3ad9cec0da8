"""docs/frameworks.md shows the services that tests/frameworks runs, as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SERVICES = sorted((ROOT / "tests" / "frameworks" / "services").glob("with_*.py"))


def test_there_are_services() -> None:
    assert len(SERVICES) >= 4


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.stem)
def test_the_page_has_the_code_that_was_run(service: Path) -> None:
    page = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
    assert f"```python\n{service.read_text(encoding='utf-8').strip()}\n```" in page
