"""What goes wrong on purpose in ``kprod demo``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from kprod.testing import Fault, MockCluster


class Trouble(NamedTuple):
    """One thing that goes wrong.

    Attributes:
        text: what, for the report.
        begin: makes it happen; gives a handle where one can tell whether it did.
    """

    text: str
    begin: Callable[[], Fault | None]


@dataclass
class Began:
    """A trouble that was begun."""

    text: str
    fault: Fault | None

    @property
    def happened(self) -> bool:
        """Whether a request met it."""
        return self.fault is None or self.fault.hits > 0


def plan_troubles(cluster: MockCluster, busiest: str) -> list[Trouble]:
    """Troubles that a producer must come through, in the order they are to happen.

    Args:
        cluster: where.
        busiest: the topic with most of the records.
    """

    def move_leaders() -> None:
        brokers = len(cluster.ports)
        for partition in range(0, cluster.topics()[busiest], 2):
            cluster.move_leader(busiest, partition, cluster.leader(busiest, partition) % brokers + 1)

    def break_connections() -> None:
        cluster.disconnect_clients()

    return [
        Trouble("half of the partitions get another leader", move_leaders),
        Trouble(
            "a broker writes a batch, then drops the connection instead of answering",
            lambda: cluster.inject("Produce", close_connection="after"),
        ),
        Trouble(
            "two requests fail with NOT_ENOUGH_REPLICAS",
            lambda: cluster.inject("Produce", "NOT_ENOUGH_REPLICAS", times=2),
        ),
        Trouble("all connections break at once", break_connections),
        Trouble(
            "a broker writes a batch and never answers",
            lambda: cluster.inject("Produce", drop_response=True),
        ),
    ]
