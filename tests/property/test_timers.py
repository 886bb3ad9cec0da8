"""The network loop's timers against a dictionary: whatever is set, set anew and cleared, they end in time."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kprod._core.io import run_timer_operations

PARTITIONS = 6
NUMBERS = st.integers(0, PARTITIONS - 1)
LINGER = 20


class Timers:
    """Makes operations as the network loop has them, and says what is to come of them."""

    def __init__(self) -> None:
        self.now = 0
        self.operations: list[tuple[Any, ...]] = []
        self.ends: dict[int, int] = {}
        self.expected: list[dict[int, int]] = []

    def set(self, kind: str, partition: int, at: int) -> None:
        self.operations.append((kind, partition, at))
        self.ends[partition] = at

    def clear(self, partition: int) -> None:
        self.operations.append(("clear", partition))
        self.ends.pop(partition, None)

    def run(self) -> None:
        self.operations.append(("run", self.now))
        self.expected.append({p: at for p, at in self.ends.items() if at <= self.now})
        self.ends = {p: at for p, at in self.ends.items() if at > self.now}

    def check(self, partitions: int) -> int:
        """How many places the line has had at most."""
        found, places = run_timer_operations(partitions, self.operations)
        assert len(found) == len(self.expected)
        for ended, due in zip(found, self.expected, strict=True):
            assert sorted(ended) == sorted(due)
            assert [due[p] for p in ended] == sorted(due.values())
        return places


STEPS = st.one_of(
    st.tuples(st.just("linger"), NUMBERS),
    st.tuples(st.sampled_from(["set", "retry"]), NUMBERS, st.integers(0, 2 * LINGER)),
    st.tuples(st.just("clear"), NUMBERS),
    st.tuples(st.just("pass"), st.integers(1, LINGER)),
    st.tuples(st.just("tidy")),
)


@given(st.lists(STEPS, max_size=120))
def test_timers_end_when_they_are_due_and_in_order(steps: list[tuple[Any, ...]]) -> None:
    timers = Timers()
    for step in steps:
        if step[0] == "linger":
            timers.set("set", step[1], timers.now + LINGER)
        elif step[0] == "clear":
            timers.clear(step[1])
        elif step[0] == "pass":
            timers.now += step[1]
            timers.run()
        elif step[0] == "tidy":
            timers.operations.append(("tidy",))
        else:
            timers.set(step[0], step[1], timers.now + step[2])
    timers.now += 2 * LINGER
    timers.run()
    assert timers.ends == {}
    timers.check(PARTITIONS)


@given(st.integers(0, 2**32))
def test_thousands_of_timers_most_of_which_are_cleared(seed: int) -> None:
    """As with batches that fill up before their time: the line grows, and is closed up again and again."""
    random = Random(seed)
    timers = Timers()
    partitions = 50
    for _ in range(4000):
        timers.now += random.randrange(2)
        p = random.randrange(partitions)
        if random.random() < 0.5:
            timers.set("set", p, timers.now + 1000)
        elif random.random() < 0.95:
            timers.clear(p)
        else:
            timers.set("retry", p, timers.now + random.randrange(100))
        if random.random() < 0.05:
            timers.operations.append(("tidy",))
            timers.run()
    timers.now += 1000
    timers.run()
    assert timers.check(partitions) <= 512
