"""The code on the pages of the documentation runs; ``tests.docs.blocks`` has what pages can say."""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kprod.testing import MockCluster
from tests.docs import shell
from tests.docs.blocks import LEFT_ALONE, Block, blocks_of, pages
from tests.docs.surroundings import Names, Place, names_for

MOST_NOT_RUN = 4
"""Blocks that are not run, for a reason that their page gives."""
RUN_ELSEWHERE = ("python -m tests.frameworks runs it", "python -m tests.scale_out runs it")
"""Reasons of blocks that need more than is installed here, and have a run of their own."""

_ADDRESSES = re.compile(r"""(?<=["'])[\w.-]+:909\d(,[\w.-]+:909\d)*(?=["'])""")
PAGES = [page for page in pages() if blocks_of(page)]


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[MockCluster]:
    with MockCluster(brokers=2, two_phase_commit=True) as cluster:
        yield cluster


@pytest.fixture
def place(shared_cluster: MockCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for topic in shared_cluster.topics():
        shared_cluster.delete_topic(topic)
    shared_cluster.clear()
    monkeypatch.chdir(tmp_path)
    # What a page prints is for its reader.
    monkeypatch.setattr(builtins, "print", lambda *_, **__: None)
    made = Place(shared_cluster, tmp_path, monkeypatch, shared_cluster.bootstrap_servers)
    with made.ended:
        yield made


@pytest.mark.parametrize("page", PAGES)
def test_the_code_runs(page: str, place: Place, request: pytest.FixtureRequest) -> None:
    names: Names = {"__name__": "page"}
    try:
        for block in blocks_of(page):
            if block.not_run is not None:
                continue
            for more in names_for(place, block.surroundings):
                names.update(more)
            if block.language == "python":
                _run(block, block.code, names, place, request)
            elif block.language == "diff":
                _run_both(block, names, place, request)
            elif block.language == "sh":
                shell.check(block)
            elif block.language == "json":
                json.loads(block.code)
            else:
                assert block.language in LEFT_ALONE, f"{block}: say which language it is, or ```text"
    finally:
        _close(names)


def test_few_blocks_are_not_run() -> None:
    left_out = [block for page in PAGES for block in blocks_of(page) if block.not_run is not None]
    assert all(len(block.not_run or "") > 15 for block in left_out), "a reason says why"
    nowhere = [block for block in left_out if block.not_run not in RUN_ELSEWHERE]
    assert len(nowhere) <= MOST_NOT_RUN, [f"{block}: {block.not_run}" for block in nowhere]


def _run_both(block: Block, names: Names, place: Place, request: pytest.FixtureRequest) -> None:
    """A change from one client to another: the code before it runs, and the code after it."""
    lines = block.code.splitlines()
    for sign in "-+":
        # The other's lines are left empty, so that line numbers are those of the page.
        code = "\n".join(line[1:] if line[:1] in (sign, " ") else "" for line in lines)
        side = dict(names)
        _run(block, code, side, place, request)
        _close(side)


def _run(block: Block, code: str, names: Names, place: Place, request: pytest.FixtureRequest) -> None:
    for text, other in place.instead.items():
        code = code.replace(text, other)
    code = _ADDRESSES.sub(place.bootstrap, code)
    # A page shows an await without the function around it, where that is what it is about.
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compiled = compile("\n" * (block.line - 1) + code, block.page, "exec", flags, dont_inherit=True)
    before = dict(names)
    if compiled.co_flags & inspect.CO_COROUTINE:
        asyncio.run(_awaited(compiled, names))
    else:
        exec(compiled, names)
    for name, made in names.items():
        if before.get(name) is made or not inspect.isfunction(made):
            continue
        if name == "main" and inspect.iscoroutinefunction(made):
            asyncio.run(made())
        elif name.startswith("test_"):
            made(**{wanted: request.getfixturevalue(wanted) for wanted in inspect.signature(made).parameters})


async def _awaited(compiled: Any, names: Names) -> None:
    await eval(compiled, names)


def _close(names: Names) -> None:
    """Close producers that a page leaves open, as a reader's program does when it ends."""
    for made in names.values():
        if type(made).__module__.startswith(("kprod.producer", "kprod.compat.kafka", "kafka.")):
            if not isinstance(made, type) and hasattr(made, "close"):
                made.close(timeout=1)
        elif type(made).__name__ == "Producer" and hasattr(made, "flush"):
            made.flush(5)
