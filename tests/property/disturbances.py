"""What goes wrong between a producer and three brokers of a mock cluster, for plans that hypothesis makes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from kprod import KafkaProducer
from kprod.errors import KafkaTimeoutError
from kprod.testing import MockCluster

BROKERS = 3


class Disturbed:
    """A producer and its cluster."""

    def __init__(self, cluster: MockCluster, producer: KafkaProducer) -> None:
        self.cluster = cluster
        self.producer = producer

    def flush(self, seconds: float) -> None:
        """Let time pass: until everything is decided, and no longer than this."""
        with contextlib.suppress(KafkaTimeoutError):
            self.producer.flush(seconds)

    def heal(self) -> None:
        """All brokers up and within reach."""
        for node in range(1, BROKERS + 1):
            self.cluster.set_unreachable(node, False)
            self.cluster.start_broker(node)


Disturbance = Callable[[Disturbed], object]


def pauses(*seconds: float) -> st.SearchStrategy[Disturbance]:
    """One of these times passes, or less if there is nothing to wait for."""
    return st.sampled_from(seconds).map(lambda most: lambda run: run.flush(most))


def injected(api: str, fault: dict[str, Any], most_skipped: int) -> st.SearchStrategy[Disturbance]:
    """A fault of a request of this API, after up to so many that pass."""
    return st.integers(0, most_skipped).map(
        lambda skip: lambda run: run.cluster.inject(api, skip=skip, **fault)
    )


def brokers(topic: str, partitions: int) -> st.SearchStrategy[Disturbance]:
    """Leaders of the topic move, connections break, brokers go away and come back; the first never stops."""
    nodes = st.integers(1, BROKERS)
    return st.one_of(
        st.tuples(st.integers(0, partitions - 1), nodes).map(
            lambda to: lambda run: run.cluster.move_leader(topic, *to)
        ),
        nodes.map(lambda node: lambda run: run.cluster.disconnect_clients(node)),
        nodes.map(lambda node: lambda run: run.cluster.set_unreachable(node, True)),
        nodes.map(lambda node: lambda run: run.cluster.set_unreachable(node, False)),
        st.integers(2, BROKERS).map(lambda node: lambda run: run.cluster.stop_broker(node)),
        nodes.map(lambda node: lambda run: run.cluster.start_broker(node)),
    )
