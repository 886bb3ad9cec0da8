"""The reference in docs/api has every public name."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.docs.blocks import ROOT

ENTRIES = {
    entry
    for page in (ROOT / "docs" / "api").glob("*.md")
    for entry in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
}
# The drop-ins are left out: they have whatever the clients have that they stand in for.
MODULES = (
    "kprod",
    "kprod.aio",
    "kprod.compat",
    "kprod.partitioner",
    "kprod.schema_registry",
    "kprod.testing",
)


def test_there_are_entries() -> None:
    assert len(ENTRIES) > 30


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_offers_is_in_the_reference(name: str) -> None:
    module = importlib.import_module(name)
    # Errors have a page for all of them.
    documented = ENTRIES | {f"{name}.__version__", "kprod.KafkaError"}
    if name not in documented:
        assert {f"{name}.{offered}" for offered in module.__all__} <= documented
