"""A short run of every fuzz target, and the corpus; ``make fuzz`` runs ten million of each."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.fuzz.harness import corpus, decode, load
from tests.fuzz.make_corpus import inputs

EXECUTIONS = {
    "varint": 400_000,
    "cursor": 300_000,
    "produce": 300_000,
    "hashes": 200_000,
    "split": 200_000,
    "decompress": 60_000,
    "protocol": 40_000,
}


@pytest.fixture(scope="module")
def native() -> ModuleType:
    return load()


@pytest.mark.parametrize("target", EXECUTIONS)
def test_the_corpus(native: ModuleType, target: str) -> None:
    for data in corpus(target):
        for end in range(len(data) + 1):
            native.run_one(target, data[:end], decode)


@pytest.mark.parametrize("target", EXECUTIONS)
def test_mutated_inputs(native: ModuleType, target: str) -> None:
    # A fixed seed: the same inputs in every run, so that a failure is of the change that is tested.
    native.run(target, corpus(target), EXECUTIONS[target], 20_261_123, None, decode)


def test_every_target_is_run(native: ModuleType) -> None:
    assert set(EXECUTIONS) == set(native.TARGETS) == set(inputs())


def test_the_corpus_is_what_its_script_writes_and_more() -> None:
    for target, files in inputs().items():
        missing = set(files.values()) - set(corpus(target))
        assert not missing, f"run python -m tests.fuzz.make_corpus: {target} has changed"


def test_a_planted_error_is_found(native: ModuleType) -> None:
    """The mutator gets from a valid response to one with four bytes that are all ones."""

    def planted(data: bytes) -> None:
        if b"\xff\xff\xff\xff" in data[6:]:
            raise IndexError("planted")

    with pytest.raises(native.Finding, match=r"protocol: IndexError\('planted'\): [0-9a-f]*ffffffff"):
        native.run("protocol", corpus("protocol"), 50_000, 1, None, planted)


def test_the_input_under_way_is_left_behind(native: ModuleType) -> None:
    last = bytearray(4100)
    seen: list[bytes] = []
    native.run("protocol", corpus("protocol"), 10, 1, last, seen.append)
    assert last[4 : 4 + int.from_bytes(last[:4], "little")] == seen[-1]
