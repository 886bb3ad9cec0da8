"""Of records with the same callback in a row a batch refers to it once: none is let go early, none kept."""

from __future__ import annotations

import gc
import random
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from kprod.errors import BufferExhaustedError
from kprod.testing import MockCluster
from tests.mock.conftest import Eventually, MakeProducer


class Callback:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, error: Exception | None, metadata: Any) -> None:
        self.calls += 1


PATTERNS: dict[str, list[int | None]] = {
    "one": [0] * 100,
    "in turns": [0, 1] * 50,
    "runs": [*[0] * 3, *[1] * 40, *[0] * 50, *[2] * 7],
    "with records without one": [0, None, 0, 0, None, None, 1, 1, None, 0] * 10,
    "first without": [*[None] * 30, *[0] * 30],
    "at random": random.Random(7).choices([0, 1, 2, None], [8, 3, 1, 2], k=400),
}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("way", ["send", "send_many", "both"])
@pytest.mark.parametrize("splits", [False, True], ids=["whole", "split"])
def test_callbacks_are_called_for_each_record_and_then_let_go(
    cluster: MockCluster,
    make_producer: MakeProducer,
    eventually: Eventually,
    pattern: str,
    way: str,
    splits: bool,
) -> None:
    cluster.create_topic("small", config={"max.message.bytes": 900 if splits else 1_000_000})
    producer = make_producer(batch_size=8000, linger_ms=60_000)
    callbacks = [Callback() for _ in range(3)]
    before = [sys.getrefcount(one) for one in callbacks]
    for i, which in enumerate(PATTERNS[pattern]):
        arguments: dict[str, Any] = {} if which is None else {"on_delivery": callbacks[which]}
        if way == "send" or (way == "both" and i % 3):
            producer.send("small", b"v" * 60, partition=0, **arguments)
        else:
            producer.send_many("small", [b"v" * 60], partitions=0, **arguments)
    del arguments
    producer.flush(20)
    assert (len(cluster.batches("small")) > 6) is splits or len(PATTERNS[pattern]) > 100
    asked = Counter(which for which in PATTERNS[pattern] if which is not None)
    assert [one.calls for one in callbacks] == [asked[i] for i in range(3)]
    eventually(lambda: [sys.getrefcount(one) for one in callbacks] == before)


@pytest.mark.parametrize("send", ["send", "send_many"])
def test_a_callback_that_nobody_else_refers_to_lives_until_it_was_called(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually, send: str
) -> None:
    producer = make_producer(linger_ms=60_000)
    called: list[int] = []

    def fresh() -> Callable[..., None]:
        return lambda error, metadata: called.append(metadata.offset)

    kept = fresh()
    gone = weakref.ref(kept)
    for _ in range(10):
        if send == "send":
            producer.send("t", b"v", partition=0, on_delivery=kept)
        else:
            producer.send_many("t", [b"v"] * 3, partitions=0, on_delivery=kept)
    del kept
    gc.collect()
    assert gone() is not None
    producer.flush(10)
    assert called == list(range(10 if send == "send" else 30))
    eventually(lambda: gone() is None)


def test_references_of_a_call_that_ends_half_way_are_given_back(
    cluster: MockCluster, make_producer: MakeProducer, eventually: Eventually
) -> None:
    producer = make_producer(buffer_memory=50_000, batch_size=2000, max_block_ms=50, linger_ms=0)
    producer.send("t", b"warm").get(10)
    fault = cluster.inject("Produce", delay_ms=500, times=None)
    callback = Callback()
    before = sys.getrefcount(callback)
    with pytest.raises(BufferExhaustedError) as raised:
        producer.send_many("t", [bytes(100)] * 2000, partitions=0, on_delivery=callback)
    appended = raised.value.appended
    assert appended is not None and 100 < appended < 600
    assert before < sys.getrefcount(callback) < before + appended, "one for each batch"
    fault.remove()
    producer.flush(20)
    assert callback.calls == appended
    del raised
    eventually(lambda: gc.collect() >= 0 and sys.getrefcount(callback) == before)
