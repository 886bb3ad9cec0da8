"""A request as the handlers see it, answers that come later, and what a request is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kprod.protocol import Api, Body, RequestHeader
from kprod.testing.broker.faults import Fault

# Where each API has its topics and partitions: (key of the topics, key of the name, key of the partitions,
# key of the partition's number or None when the partitions are plain numbers).
_PARTITIONS_IN: dict[str, tuple[str, str, str, str | None]] = {
    "Produce": ("topic_data", "name", "partition_data", "index"),
    "Fetch": ("topics", "topic", "partitions", "partition"),
    "ListOffsets": ("topics", "name", "partitions", "partition_index"),
    "OffsetForLeaderEpoch": ("topics", "topic", "partitions", "partition"),
    "AddPartitionsToTxn": ("topics", "name", "partitions", None),
    "TxnOffsetCommit": ("topics", "name", "partitions", "partition_index"),
    "OffsetCommit": ("topics", "name", "partitions", "partition_index"),
}


class Later:
    """An answer that is not there yet.

    The handler returns it; whoever completes it calls :meth:`set` with the body of the response.
    """

    def __init__(self) -> None:
        self._body: Body | None = None
        self._on_set: Callable[[Body], None] | None = None

    def set(self, body: Body) -> None:
        """Give the answer; later calls have no effect."""
        if self._body is None:
            self._body = body
            if self._on_set is not None:
                self._on_set(body)

    def when_set(self, callback: Callable[[Body], None]) -> None:
        """Have `callback` called with the body, at once when it is there."""
        self._on_set = callback
        if self._body is not None:
            callback(self._body)


class CloseConnection(Exception):
    """Raised by a handler: the broker closes the connection instead of answering."""


class Request:
    """A decoded request.

    Attributes:
        header: its header.
        api: the API.
        body: the fields by name.
        node: id of the broker it came to.
        client_address: host of the client.
        faults: the injected faults that it hit.
    """

    __slots__ = ("api", "body", "client_address", "faults", "header", "node")

    def __init__(self, header: RequestHeader, api: Api, body: Body, node: int, client_address: str) -> None:
        self.header = header
        self.api = api
        self.body = body
        self.node = node
        self.client_address = client_address
        self.faults: list[Fault] = []

    @property
    def version(self) -> int:
        """Version of the API."""
        return self.header.api_version

    def fault_for(self, topic: str | None = None, partition: int | None = None) -> Fault | None:
        """The fault with an error that was injected for this request or this topic or partition of it."""
        for fault in self.faults:
            if fault.error and fault.covers(topic, partition):
                return fault
        return None

    def error_for(self, topic: str | None = None, partition: int | None = None) -> int:
        """The code of :meth:`fault_for`, 0 when there is none."""
        fault = self.fault_for(topic, partition)
        return fault.error if fault is not None else 0

    def touched(self, topic_name: Callable[[bytes], str | None]) -> Iterator[tuple[str | None, int | None]]:
        """The (topic, partition) pairs the request is about; partition ``None`` where it is about a topic.

        Args:
            topic_name: finds the name for a topic id.
        """
        if self.api.name == "Metadata":
            for topic in self.body["topics"] or ():
                yield topic["name"] or topic_name(topic["topic_id"]), None
            return
        if self.api.name in ("CreateTopics", "CreatePartitions"):
            for topic in self.body["topics"]:
                yield topic["name"], None
            return
        place = _PARTITIONS_IN.get(self.api.name)
        if place is None:
            return
        topics_key, name_key, partitions_key, number_key = place
        for topic in self.body[topics_key]:
            name = topic[name_key] or topic_name(topic.get("topic_id", b""))
            for partition in topic[partitions_key]:
                yield name, partition if number_key is None else partition[number_key]

    def summary(self) -> Body:
        """The body for the log: record data, credentials and metrics are replaced by their length."""
        if self.api.name == "Produce":
            topics: list[dict[str, Any]] = [
                {
                    **topic,
                    "partition_data": [
                        {"index": p["index"], "records": len(p["records"] or b"")}
                        for p in topic["partition_data"]
                    ],
                }
                for topic in self.body["topic_data"]
            ]
            return {**self.body, "topic_data": topics}
        if self.api.name == "SaslAuthenticate":
            return {"auth_bytes": len(self.body["auth_bytes"])}
        if self.api.name == "PushTelemetry":
            return {**self.body, "metrics": len(self.body["metrics"])}
        return self.body
