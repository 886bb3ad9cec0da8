"""The diagram in docs/transactions.md is the table in kprod.transactions.states."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from kprod.transactions.states import TRANSITIONS, State

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool() -> ModuleType:
    """tools/draw_transaction_states.py."""
    path = ROOT / "tools" / "draw_transaction_states.py"
    spec = importlib.util.spec_from_file_location("draw_transaction_states", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_diagram_has_every_transition_and_no_other(tool: ModuleType) -> None:
    lines = [line.split(":")[0].split() for line in tool.diagram().splitlines() if "-->" in line]
    names = {state.name for state in State}
    drawn = {(a, b) for a, _, b in lines if a in names and b in names}
    assert drawn == {(a.name, b.name) for a, following in TRANSITIONS.items() for b in following}


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="runs in the source tree only")
def test_the_page_is_up_to_date(tool: ModuleType) -> None:
    assert tool.main(["--check"]) == 0, "run python tools/draw_transaction_states.py"


def test_an_old_page_is_noticed_and_rewritten(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "transactions.md"
    page.write_text(f"before\n{tool.BEGIN}\nold\n{tool.END}\nbehind\n")
    monkeypatch.setattr(tool, "PAGE", page)
    assert tool.main(["--check"]) == 1
    assert "not up to date" in capsys.readouterr().err
    assert tool.main([]) == 0
    assert tool.main(["--check"]) == 0
    assert page.read_text() == f"before\n{tool.BEGIN}\n{tool.diagram()}\n{tool.END}\nbehind\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="must have the lines"):
        tool.main([])


def test_a_transition_without_a_name_is_an_error(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {**TRANSITIONS, State.READY: TRANSITIONS[State.READY] | {State.UNINITIALIZED}}
    monkeypatch.setattr(tool, "TRANSITIONS", more)
    with pytest.raises(ValueError, match="READY to UNINITIALIZED"):
        tool.diagram()
