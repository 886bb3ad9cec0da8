"""MockCluster: a Kafka cluster on loopback, for tests of code that produces to Kafka."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple

from kprod.protocol import Api
from kprod.testing.broker.faults import CLOSE_MODES, error_code, find_api
from kprod.testing.broker.record_batch import CODECS, BatchHeader, read_header, read_records
from kprod.testing.broker.sasl import MECHANISMS
from kprod.testing.broker.server import MockRequest
from kprod.testing.broker.telemetry import ACCEPTED_COMPRESSION, MockTelemetryPush
from kprod.testing.broker.versions import DEFAULT_RELEASE, RELEASES
from kprod.testing.hosts import Host, ProcessHost, ThreadHost


class MockRecord(NamedTuple):
    """A record as it is in the cluster.

    Attributes:
        topic: its topic.
        partition: its partition.
        offset: its offset.
        key: its key, ``None`` for a null key.
        value: its value, ``None`` for a null value.
        headers: its headers in order.
        timestamp: ms since 1970.
        producer_id: of the batch, -1 without idempotence.
        producer_epoch: of the batch, -1 without idempotence.
        sequence: of this record, -1 without idempotence.
        compression: codec of the batch: none, gzip, snappy, lz4 or zstd.
        batch_base_offset: offset of the first record of its batch.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    timestamp: int
    producer_id: int
    producer_epoch: int
    sequence: int
    compression: str
    batch_base_offset: int


class MockBatch(NamedTuple):
    """A record batch as it is in the cluster; `data` is the whole batch, `header` its decoded first 61
    bytes.
    """

    topic: str
    partition: int
    header: BatchHeader
    data: bytes

    @property
    def compression(self) -> str:
        """Its codec: none, gzip, snappy, lz4 or zstd."""
        return CODECS[self.header.codec]


class Fault:
    """Handle of a fault that :meth:`MockCluster.inject` set up."""

    def __init__(self, host: Host, number: int) -> None:
        self._host = host
        self._number = number

    @property
    def hits(self) -> int:
        """How many requests it has hit so far."""
        hits: int = self._host.call("fault_hits", self._number)
        return hits

    def remove(self) -> None:
        """End it; has no effect when it is spent."""
        self._host.call("remove_fault", self._number)


class MockCluster:
    """A Kafka cluster of one or more brokers on loopback that any Kafka client can talk to.

    It runs from construction to :meth:`close` (or the end of a ``with`` block) in a thread or a process of
    its own, keeps everything in memory, and answers as Apache Kafka does: it checks checksums, sizes,
    producer epochs and sequences, runs transactions, and serves consumers and consumer groups. Its content
    can be looked at, and faults can be injected, at any time and from any thread.

    >>> with MockCluster() as cluster:
    ...     cluster.create_topic("events", partitions=3)
    ...     cluster.count("events")
    0

    Args:
        brokers: how many; their ids are 1, 2, ...
        process: run in a process of its own, so that it takes no time from the code under test in this one.
            Everything else is the same.
        auto_create_topics: create topics when a client asks for unknown ones (``auto.create.topics.enable``).
        default_partitions: partitions of such topics (``num.partitions``).
        replication_factor: replicas per partition where none is given; at most `brokers`.
        as_version: Kafka release to pass for, '2.1' to '4.1': which API versions and features it has.
        strict: decode and check each record of each batch, in Python. ``False`` checks batch headers and
            checksums only and is much faster.
        host: address to listen on.
        racks: rack of each broker.
        ssl_context: speak TLS with this server context (thread mode only).
        sasl_users: passwords by user name: clients must authenticate with SASL. OAUTHBEARER takes unsigned
            tokens (:class:`kprod.security.oauthbearer.UnsecuredTokens`) whose subject is a user.
        sasl_mechanisms: those offered; ``None``: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER.
        two_phase_commit: brokers that take part in two-phase commits (KIP-939), and keep a prepared
            transaction for a successor, which no release of Kafka does yet. Needs ``as_version='4.1'``.
        max_reauth_ms: sessions end after so many ms unless the client authenticates again
            (``connections.max.reauth.ms``, KIP-368); 0: they do not end.

    Raises:
        ValueError: an argument is out of range.
        OSError: the address cannot be listened on.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        process: bool = False,
        auto_create_topics: bool = True,
        default_partitions: int = 1,
        replication_factor: int = 1,
        as_version: str = DEFAULT_RELEASE,
        strict: bool = True,
        host: str = "127.0.0.1",
        racks: Iterable[str | None] | None = None,
        ssl_context: Any = None,
        sasl_users: Mapping[str, str] | None = None,
        sasl_mechanisms: Iterable[str] | None = None,
        max_reauth_ms: int = 0,
        two_phase_commit: bool = False,
    ) -> None:
        if brokers < 1:
            raise ValueError(f"brokers must be at least 1, not {brokers}")
        if not 1 <= replication_factor <= brokers:
            raise ValueError(
                f"replication_factor must be 1 to {brokers} (the brokers), not {replication_factor}"
            )
        if default_partitions < 1:
            raise ValueError(f"default_partitions must be at least 1, not {default_partitions}")
        if as_version not in RELEASES:
            raise ValueError(f"as_version must be one of {', '.join(RELEASES)}, not {as_version!r}")
        if two_phase_commit and RELEASES.index(as_version) < RELEASES.index("4.1"):
            raise ValueError(f"two_phase_commit needs as_version '4.1' or newer, not {as_version!r}")
        rack_list = list(racks) if racks is not None else None
        if rack_list is not None and len(rack_list) != brokers:
            raise ValueError(f"racks must name one rack for each of {brokers} brokers, not {len(rack_list)}")
        if process and ssl_context is not None:
            raise ValueError("ssl_context cannot be used with process=True: it cannot be sent to a process")
        mechanisms = MECHANISMS if sasl_mechanisms is None else tuple(sasl_mechanisms)
        if unknown := set(mechanisms) - set(MECHANISMS):
            raise ValueError(f"sasl_mechanisms may have {', '.join(MECHANISMS)}, not {min(unknown)!r}")
        if sasl_users is None and (sasl_mechanisms is not None or max_reauth_ms):
            raise ValueError("sasl_mechanisms and max_reauth_ms need sasl_users")
        options = {
            "sasl": (dict(sasl_users), mechanisms, max_reauth_ms) if sasl_users is not None else None,
            "brokers": brokers,
            "host": host,
            "racks": rack_list,
            "auto_create_topics": auto_create_topics,
            "default_partitions": default_partitions,
            "replication_factor": replication_factor,
            "release": as_version,
            "strict": strict,
            "two_phase_commit": two_phase_commit,
        }
        self._host: Host = (
            ProcessHost(options) if process else ThreadHost({**options, "ssl_context": ssl_context})
        )
        # A cluster that was never closed must not outlive its last reference with open sockets.
        self._finalizer = weakref.finalize(self, self._host.close)
        self._address = f"[{host}]" if ":" in host else host
        self._ports: list[int] = self._host.call("ports")

    def close(self) -> None:
        """Stop all brokers and release everything. Records cannot be read after this. May be called again."""
        self._finalizer()

    def __enter__(self) -> MockCluster:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = self.bootstrap_servers if self._finalizer.alive else "closed"
        return f"<MockCluster {state}>"

    @property
    def bootstrap_servers(self) -> str:
        """All brokers as ``host:port,host:port``, for the option of the same name."""
        return ",".join(f"{self._address}:{port}" for port in self._ports)

    @property
    def ports(self) -> list[int]:
        """Port of each broker, in the order of their ids."""
        return list(self._ports)

    # --- topics
    # -----------------------------------------------------------------------------------------------

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replication_factor: int | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Create a topic. Its leaders go round the brokers.

        Args:
            name: its name.
            partitions: how many.
            replication_factor: replicas of each partition; ``None`` takes the cluster's.
            config: topic settings by Kafka's names. These have an effect: ``max.message.bytes``,
                ``message.timestamp.type``, ``message.timestamp.before.max.ms``,
                ``message.timestamp.after.max.ms``, ``cleanup.policy`` (compact demands keys),
                ``min.insync.replicas``.

        Raises:
            ValueError: it exists, or an argument is not valid.
        """
        self._host.call("create_topic", name, partitions, replication_factor, dict(config or {}))

    def add_partitions(self, topic: str, total: int) -> None:
        """Raise the number of partitions of a topic to `total`.

        Raises:
            KeyError: there is no such topic.
            ValueError: it has as many or more.
        """
        self._host.call("add_partitions", topic, total)

    def delete_topic(self, topic: str) -> None:
        """Delete a topic with its records.

        Raises:
            KeyError: there is no such topic.
        """
        self._host.call("delete_topic", topic)

    def recreate_topic(self, topic: str, partitions: int | None = None) -> None:
        """Delete a topic and create it anew: empty, with another topic id and the default settings.

        Args:
            topic: its name.
            partitions: how many; ``None`` for as many as before.

        Raises:
            KeyError: there is no such topic.
        """
        before = self.topics()[topic]
        self.delete_topic(topic)
        self.create_topic(topic, before if partitions is None else partitions)

    def topics(self) -> dict[str, int]:
        """Number of partitions by topic."""
        topics: dict[str, int] = self._host.call("topics")
        return topics

    def topic_id(self, topic: str) -> bytes:
        """The UUID of a topic, 16 bytes.

        Raises:
            KeyError: there is no such topic.
        """
        topic_id: bytes = self._host.call("topic_id", topic)
        return topic_id

    # --- what is there
    # ----------------------------------------------------------------------------------------

    def batches(self, topic: str, partition: int | None = None) -> list[MockBatch]:
        """Record batches in order of partition and offset, transaction markers included.

        Args:
            topic: the topic; an unknown one has none.
            partition: only this partition.
        """
        return [
            MockBatch(topic, index, read_header(data), data)
            for index, batches in self._host.call("batches", topic, partition)
            for data in batches
        ]

    def records(self, topic: str, partition: int | None = None) -> list[MockRecord]:
        """All records in order of partition and offset; those of aborted transactions too.

        They are decoded at each call, in the calling thread. :meth:`count` is cheaper for their number.

        Args:
            topic: the topic; an unknown one has none.
            partition: only this partition.
        """
        return [
            record
            for batch in self.batches(topic, partition)
            if not batch.header.is_control
            for record in _decode(batch)
        ]

    def count(self, topic: str | None = None, partition: int | None = None) -> int:
        """Number of records in a partition, a topic, or the whole cluster."""
        count: int = self._host.call("count", topic, partition)
        return count

    def wait_for(self, count: int, topic: str | None = None, timeout: float = 10.0) -> int:
        """Wait until there are `count` records or more.

        Args:
            count: how many.
            topic: in this topic; ``None``: in the whole cluster.
            timeout: seconds to wait at most.

        Returns:
            How many there are.

        Raises:
            TimeoutError: there are fewer after `timeout` seconds.
        """
        have: int = self._host.call("wait_for", count, topic, timeout)
        if have < count:
            where = "the cluster" if topic is None else f"topic {topic!r}"
            raise TimeoutError(f"{have} of {count} records are in {where} after {timeout} s")
        return have

    def end_offset(self, topic: str, partition: int = 0) -> int:
        """The offset that the next record of a partition gets.

        Raises:
            KeyError: there is no such topic.
            IndexError: there is no such partition.
        """
        offset: int = self._host.call("end_offset", topic, partition)
        return offset

    def committed_offsets(self, group: str) -> dict[tuple[str, int], int]:
        """Offsets that a consumer group has committed, by (topic, partition)."""
        offsets: dict[tuple[str, int], int] = self._host.call("committed_offsets", group)
        return offsets

    @property
    def requests(self) -> list[MockRequest]:
        """Requests of clients in the order they were received; the last 100,000 are kept."""
        requests: list[MockRequest] = self._host.call("requests")
        return requests

    def requests_of(self, api: str, node: int | None = None) -> list[MockRequest]:
        """The requests of one API.

        Args:
            api: Kafka's name of it, for instance ``'Produce'``.
            node: only those that came to this broker.

        Raises:
            ValueError: there is no such API.
        """
        name = find_api(api).name
        return [r for r in self.requests if r.api == name and (node is None or r.node == node)]

    def subscribe_to_metrics(
        self,
        metrics: Iterable[str] | None = ("*",),
        *,
        push_interval_ms: int = 300_000,
        compression: Iterable[str] = ACCEPTED_COMPRESSION,
        delta_temporality: bool = True,
        max_bytes: int = 1 << 20,
    ) -> None:
        """Ask all clients for metrics from now on (KIP-714), as brokers with a receiver for them do.

        Before the first call brokers have none and do not offer the API: clients notice when they connect.
        A client that has subscribed learns of a change when it pushes next. The defaults are Apache Kafka's.

        Args:
            metrics: prefixes of the names of metrics; ``*`` for all; empty: the brokers ask for none;
                ``None``: brokers without a receiver.
            push_interval_ms: how often to push, at least 100.
            compression: codecs that are accepted, the one to be preferred first.
            delta_temporality: ask for differences since the last push, not for totals since the start.
            max_bytes: the largest push that is accepted (``telemetry.max.bytes``).

        Raises:
            ValueError: the interval is too short, or a codec is not known.
        """
        if metrics is None:
            self._host.call("subscribe_to_metrics", None)
            return
        if push_interval_ms < 100:
            raise ValueError(f"push_interval_ms must be at least 100, as in Kafka, not {push_interval_ms}")
        codecs = tuple(compression)
        if unknown := set(codecs) - set(ACCEPTED_COMPRESSION):
            raise ValueError(f"compression may have {', '.join(ACCEPTED_COMPRESSION)}, not {min(unknown)!r}")
        fields = {
            "metrics": tuple(metrics),
            "push_interval_ms": push_interval_ms,
            "compression": codecs,
            "delta_temporality": delta_temporality,
            "max_bytes": max_bytes,
        }
        self._host.call("subscribe_to_metrics", fields)

    @property
    def telemetry_pushes(self) -> list[MockTelemetryPush]:
        """Metrics that clients pushed and the brokers accepted, in the order they came."""
        pushes: list[MockTelemetryPush] = self._host.call("telemetry_pushes")
        return pushes

    @property
    def problems(self) -> list[str]:
        """What clients sent that is no valid request. Empty for a correct client.

        Each closed the connection, unless it was a whole request with bytes behind it: Kafka does not look at
        those (librdkafka 2.16 has three behind the request of its ``list_topics()``).
        """
        problems: list[str] = self._host.call("problems")
        return problems

    def clear(self) -> None:
        """Begin anew: no records (offsets from 0), no faults or disturbances, empty logs. Topics stay."""
        self._host.call("clear")

    def set_password(self, user: str, password: str | None) -> None:
        """Change a user's password, or add a user; connections there are keep their session.

        Args:
            user: the user's name.
            password: the password from now on; ``None`` takes the user away.

        Raises:
            ValueError: the cluster was made without `sasl_users`.
        """
        self._host.call("set_password", user, password)

    # --- disturbances
    # -----------------------------------------------------------------------------------------

    def inject(
        self,
        api: str | int | Api,
        error: str | int | None = None,
        *,
        topic: str | None = None,
        partition: int | None = None,
        node: int | None = None,
        times: int | None = 1,
        skip: int = 0,
        applied: bool = False,
        error_message: str | None = None,
        record_errors: Iterable[tuple[int, str | None]] = (),
        delay_ms: float = 0,
        handle_after_ms: float = 0,
        throttle_ms: int = 0,
        drop_response: bool = False,
        close_connection: bool | str = False,
    ) -> Fault:
        """Make something go wrong with the next requests that match.

        Args:
            api: which requests, by Kafka's name of the API or by its key.
            error: answer with this error, by Kafka's name (``'NOT_LEADER_OR_FOLLOWER'``) or code. Where
                requests
                are about partitions or topics, those that match get it, the others are handled.
            topic: only requests about this topic.
            partition: only requests about this partition.
            node: only requests to this broker.
            times: how many requests to hit; ``None`` for all until it is removed.
            skip: let so many matching requests pass first.
            applied: with `error`: handle the request first, then answer with the error all the same
                (Produce and
                EndTxn), as when a broker times out after the append.
            error_message: message to go with the error, where the API has one.
            record_errors: (index, message) of records to blame (Produce from version 8).
            delay_ms: send the response so much later. The request is handled at once.
            handle_after_ms: handle the request, and what follows it on its connection, so much later, even
                when the client has closed the connection by then: a broker that is behind with its work.
            throttle_ms: set ``throttle_time_ms`` in the response.
            drop_response: handle the request but never answer it nor anything after it on this connection.
            close_connection: ``'before'`` or ``True``: close the connection instead of handling the request;
                ``'after'``: handle it, then close without an answer; ``'mid_response'``: close after half
                of the answer.

        Returns:
            A handle to ask how often it was hit, and to end it.

        Raises:
            ValueError: the API or the error is not known, or another argument is not valid.
        """
        if close_connection is True:
            close_connection = "before"
        if close_connection and close_connection not in CLOSE_MODES:
            raise ValueError(
                f"close_connection must be one of {', '.join(CLOSE_MODES)}, not {close_connection!r}"
            )
        if times is not None and times < 1:
            raise ValueError(f"times must be at least 1, or None for always, not {times}")
        if node is not None:
            self._check_node(node)
        code = error_code(error)
        disturbs = code or delay_ms or handle_after_ms or throttle_ms or drop_response or close_connection
        if not disturbs:
            raise ValueError(
                "nothing to inject: give error, delay_ms, handle_after_ms, throttle_ms, drop_response or "
                "close_connection"
            )
        fields = {
            "api": find_api(api).key,
            "error": code,
            "error_message": error_message,
            "topic": topic,
            "partition": partition,
            "node": node,
            "times": times,
            "skip": skip,
            "applied": applied,
            "delay_ms": delay_ms,
            "handle_after_ms": handle_after_ms,
            "throttle_ms": throttle_ms,
            "drop_response": drop_response,
            "close_connection": close_connection or None,
            "record_errors": list(record_errors),
        }
        return Fault(self._host, self._host.call("add_fault", fields))

    def _check_node(self, node: int) -> None:
        if not 1 <= node <= len(self._ports):
            raise ValueError(f"node must be 1 to {len(self._ports)}, not {node}")

    def leader(self, topic: str, partition: int = 0) -> int:
        """The broker that leads a partition, -1 for none.

        Raises:
            KeyError: there is no such topic.
            IndexError: there is no such partition.
        """
        leader: int = self._host.call("leader", topic, partition)
        return leader

    def move_leader(self, topic: str, partition: int, node: int) -> None:
        """Make another broker the leader of a partition, with the next leader epoch.

        Raises:
            KeyError: there is no such topic.
            IndexError: there is no such partition.
            ValueError: there is no such broker.
        """
        self._check_node(node)
        self._host.call("move_leader", topic, partition, node)

    def stop_broker(self, node: int) -> None:
        """Stop a broker: its connections break, new ones are refused, its partitions move to other replicas.

        Records are not lost. Has no effect on a broker that does not run.

        Raises:
            ValueError: there is no such broker.
        """
        self._check_node(node)
        self._host.call("stop_broker", node)

    def start_broker(self, node: int) -> None:
        """Start a stopped broker on the port it had. Has no effect on one that runs.

        Raises:
            ValueError: there is no such broker.
        """
        self._check_node(node)
        self._host.call("start_broker", node)

    def set_unreachable(self, node: int, unreachable: bool = True) -> None:
        """Make a broker a black hole: connections stay and can be made, but nothing is read or answered.

        When it ends, what clients sent in the meantime is handled, as after a network partition.

        Raises:
            ValueError: there is no such broker.
        """
        self._check_node(node)
        self._host.call("set_unreachable", node, unreachable)

    def set_latency(self, ms: float, node: int | None = None) -> None:
        """Send every response so many ms later. Requests are handled at once; several can be under way.

        Args:
            ms: the delay; 0 ends it.
            node: only this broker.

        Raises:
            ValueError: there is no such broker.
        """
        if node is not None:
            self._check_node(node)
        self._host.call("set_latency", ms / 1000, node)

    def set_slow_writes(self, interval_ms: float, size: int = 1, node: int | None = None) -> None:
        """Send responses in small pieces.

        Args:
            interval_ms: time between two pieces; 0 ends it.
            size: bytes of a piece.
            node: only this broker.

        Raises:
            ValueError: there is no such broker, or `size` is less than 1.
        """
        if node is not None:
            self._check_node(node)
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self._host.call("set_slow_writes", interval_ms / 1000, size, node)

    def disconnect_clients(self, node: int | None = None) -> int:
        """Break all connections, or those to one broker; clients can connect again at once.

        Returns:
            How many connections there were.

        Raises:
            ValueError: there is no such broker.
        """
        if node is not None:
            self._check_node(node)
        count: int = self._host.call("disconnect_clients", node)
        return count

    def connection_count(self, node: int | None = None) -> int:
        """Open connections of clients, to all brokers or to one."""
        count: int = self._host.call("connection_count", node)
        return count

    def set_version(self, release: str) -> None:
        """Pass for another Kafka release from now on; clients notice when they connect again.

        Raises:
            ValueError: the release is not known.
        """
        if release not in RELEASES:
            raise ValueError(f"release must be one of {', '.join(RELEASES)}, not {release!r}")
        self._host.call("set_release", release)

    def set_api_versions(self, ranges: Mapping[str, tuple[int, int] | None]) -> None:
        """Change which versions of some APIs are offered.

        Args:
            ranges: (lowest, highest) by Kafka's name of the API; ``None`` takes the API away.

        Raises:
            ValueError: an API is not known, or a range goes beyond what this package knows of it.
        """
        changed: dict[int, tuple[int, int] | None] = {}
        for name, versions in ranges.items():
            api = find_api(name)
            if versions is not None and not 0 <= versions[0] <= versions[1] <= api.versions[1]:
                raise ValueError(
                    f"versions of {api.name} must be within 0 to {api.versions[1]}, not {versions}"
                )
            changed[api.key] = versions
        self._host.call("set_api_versions", changed)


def _decode(batch: MockBatch) -> list[MockRecord]:
    header = batch.header
    topic, partition, compression = batch.topic, batch.partition, batch.compression
    base_offset = header.base_offset
    producer_id, producer_epoch = header.producer_id, header.producer_epoch
    # Some clients number batches without a producer id too; that means nothing.
    sequence = header.base_sequence if producer_id >= 0 else -1
    fixed_timestamp = header.max_timestamp if header.has_log_append_time else None
    return [
        MockRecord(
            topic,
            partition,
            base_offset + index,
            key,
            value,
            headers,
            header.base_timestamp + delta if fixed_timestamp is None else fixed_timestamp,
            producer_id,
            producer_epoch,
            (sequence + index) & 0x7FFFFFFF if sequence >= 0 else -1,
            compression,
            base_offset,
        )
        for index, (delta, key, value, headers) in enumerate(read_records(batch.data, header))
    ]
