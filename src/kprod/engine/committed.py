"""What a consumer group has committed, asked for by an application thread."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from kprod import errors
from kprod.cluster.node import Node, State
from kprod.engine.connections import Connections
from kprod.engine.nodes import Nodes
from kprod.engine.shared import Shared
from kprod.protocol import Api, Body
from kprod.protocol.find_coordinator import FIND_COORDINATOR
from kprod.protocol.offset_fetch import OFFSET_FETCH

_GROUP: Final = 0
"""FindCoordinator's key type of groups."""

_PAUSE_S: Final = 0.1
"""Between an answer that says "later", or none, and the next try."""


class Committed(NamedTuple):
    """An offset that is committed, with the text beside it."""

    offset: int
    metadata: str


class CommittedOffsets:
    """OffsetFetch requests on behalf of the application.

    Args:
        shared: what the threads share.
        nodes: where coordinators are.
        connections: where requests go.
    """

    def __init__(self, shared: Shared, nodes: Nodes, connections: Connections) -> None:
        self._shared = shared
        self._nodes = nodes
        self._connections = connections

    def ask(self, group_id: str, topic: str, partition: int, timeout_s: float) -> Committed | None:
        """What a group has committed for a partition; None: nothing.

        Offsets of a transaction that is not decided yet are waited for (KIP-447, `require_stable`; brokers
        since 2.5).

        Args:
            group_id: the group.
            topic, partition: the partition.
            timeout_s: seconds to wait for an answer.

        Raises:
            KafkaTimeoutError: no answer came in time; the message says why.
            GroupAuthorizationFailedError, TopicAuthorizationFailedError: Describe is not allowed.
            UnsupportedVersionError: the coordinator is older than 2.5.
        """
        deadline = time.monotonic() + timeout_s
        problem = "nobody has answered"
        coordinator: tuple[int, str, int] | None = None
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise errors.KafkaTimeoutError(
                    f"the committed offset of group {group_id!r} for {topic}-{partition} could not be read "
                    f"within {timeout_s:g} s: {problem} ({self._nodes.report()})"
                )
            if coordinator is None:
                answer = self._exchange(
                    FIND_COORDINATOR,
                    {"key": group_id, "key_type": _GROUP, "coordinator_keys": [group_id]},
                    None,
                    left,
                )
                if answer is not None:
                    row = answer["coordinators"][0] if answer.get("coordinators") else answer
                    code = row["error_code"]
                    if code == 0:
                        coordinator = (row["node_id"], row["host"], row["port"])
                        continue
                    problem = self._passing(code, group_id, "its coordinator was asked for")
            else:
                asked = [{"name": topic, "partition_indexes": [partition]}]
                answer = self._exchange(
                    OFFSET_FETCH,
                    {
                        "group_id": group_id,
                        "topics": asked,
                        "groups": [{"group_id": group_id, "topics": asked}],
                        "require_stable": True,
                    },
                    coordinator,
                    left,
                )
                if answer is not None:
                    group = answer["groups"][0] if answer.get("groups") else answer
                    row = _row(group, topic, partition)
                    code = group["error_code"] or (row["error_code"] if row is not None else 0)
                    if code:
                        problem = self._passing(code, group_id, "its coordinator was asked for the offset")
                    elif row is None:
                        problem = "the answer leaves the partition out"
                    elif row["committed_offset"] < 0:
                        return None
                    else:
                        return Committed(row["committed_offset"], row["metadata"] or "")
                # It may have moved; the one that does not answer may be down.
                coordinator = None
            with self._shared.changed:
                self._shared.check_open()
                self._shared.changed.wait(min(_PAUSE_S, max(0.0, deadline - time.monotonic())))

    def _passing(self, code: int, group_id: str, when: str) -> str:
        """An error that may pass, in words.

        Raises:
            KafkaError: it will not pass.
        """
        kind = errors.for_code(code)
        text = f"{errors.name_for_code(code)} when {when}"
        if kind.retriable:
            return text
        raise kind(f"group {group_id!r}: {text}: {kind.description}")

    def _exchange(
        self, api: Api, body: Body, coordinator: tuple[int, str, int] | None, timeout_s: float
    ) -> Body | None:
        """Ask a broker and wait for its answer; None: there is none, or the connection is not there yet."""
        shared = self._shared
        answers: list[Body | None] = []
        too_old: list[str] = []

        def answered(node: Node, answer: Body | None, reason: str) -> None:
            with shared.changed:
                answers.append(answer)
                shared.changed.notify_all()

        def ask() -> None:
            node = None if coordinator is None else self._nodes.broker_at(*coordinator)
            if node is not None and node.state is State.READY and api is OFFSET_FETCH:
                version = node.version_of(api)
                if version is None or version < 7:
                    too_old.append(str(node))
                    answered(node, None, "")
                    return
            if not self._connections.request(api, body, answered, None, node):
                with shared.changed:
                    answers.append(None)
                    shared.changed.notify_all()

        self._nodes.demand()
        shared.call_in_control(ask)
        deadline = time.monotonic() + timeout_s
        with shared.changed:
            while not answers and (left := deadline - time.monotonic()) > 0:
                shared.check_open()
                shared.changed.wait(min(left, 1.0))
        if too_old:
            raise errors.UnsupportedVersionError(
                f"broker {too_old[0]} cannot be asked for stable offsets (KIP-447): it needs Apache Kafka 2.5"
            )
        return answers[0] if answers else None


def _row(group: Body, topic: str, partition: int) -> Body | None:
    for entry in group["topics"]:
        for row in entry["partitions"]:
            if (entry["name"], row["partition_index"]) == (topic, partition):
                found: Body = row
                return found
    return None
