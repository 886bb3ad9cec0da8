"""Writing a partitioned data set, where tasks may run more than once: each partition is written once.

For engines that split data into numbered partitions, give each to a task on some worker, and run the task
again where it failed: Spark (:mod:`kprod.spark`), Dask (:mod:`kprod.dask`), and whatever else can call
:meth:`PartitionSink.write`. docs/scale-out.md says what is guaranteed, and why.
"""

from __future__ import annotations

import collections
import json
import logging
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kprod.errors import IllegalStateError, KafkaConfigurationError
from kprod.producer import KafkaProducer
from kprod.records import OffsetAndMetadata, TopicPartition

if TYPE_CHECKING:
    from kprod._core.bulk_future import BulkDeliveryFuture
    from kprod.records import ArrowArray, BulkHeaders

logger = logging.getLogger("kprod.partition_sink")

TRANSACTION_TIMEOUT_MS: Final = 900_000
"""A partition has that long, unless the options say otherwise: the most that brokers allow by default
(`transaction.max.timeout.ms`)."""


class PartitionWritten(NamedTuple):
    """What became of a partition."""

    partition: int
    """Its number in the job (not in the topic)."""
    rows: int
    """How many rows it has in the topic."""
    by_this_attempt: bool
    """False: an earlier attempt had committed it, and this one has written nothing."""


def new_job_id() -> str:
    """A job id that no other job has."""
    return f"kprod-job-{uuid.uuid4().hex}"


@dataclass(frozen=True)
class PartitionSink:
    """Writes the partitions of one job to a topic. It can be pickled: every worker gets the same one.

    Args:
        topic: where rows go.
        options: of the producers, as :class:`kprod.KafkaProducer` takes them; ``bootstrap_servers`` at least.
            ``transaction_timeout_ms``, 15 minutes unless given, bounds how long one partition may take.
        values: name of the column of values: binary or text.
        keys: name of the column of keys; None: no keys.
        timestamps: name of the column of timestamps: integers (ms since 1970) or Arrow timestamps; None: now.
        headers: of every row.
        job_id: names the job. Partition p of the job is written once, however often it is tried under this
            id, by whichever process. Transactional ids and consumer groups are called ``{job_id}-{p}``. The
            default, a new name, is for tasks that the engine runs again. With a name of your own the whole
            job can be run again after its driver has failed, with the same data in the same partitions.
        partitions: how many the job has; where it is given, a job that goes on under the same ``job_id`` with
            another number is refused.
        exactly_once: False: no transactions and no records of completion. A task that is run again then
            writes its rows again.

    Raises:
        KafkaConfigurationError: an option contradicts this, or is one that the sink sets itself.
    """

    topic: str
    options: Mapping[str, Any]
    values: str = "value"
    keys: str | None = None
    timestamps: str | None = None
    headers: BulkHeaders | None = None
    job_id: str = ""
    partitions: int | None = None
    exactly_once: bool = True

    def __post_init__(self) -> None:
        for name in self.options:
            if name.replace(".", "_") == "transactional_id":
                raise KafkaConfigurationError(
                    f"{name}={self.options[name]!r}: each partition has a transactional id of its own here, "
                    "made from the job id: leave the option out and set job_id"
                )
        if not self.job_id:
            object.__setattr__(self, "job_id", new_job_id())

    @property
    def columns(self) -> list[str]:
        """The columns that are used, each once."""
        return list(dict.fromkeys(n for n in (self.values, self.keys, self.timestamps) if n is not None))

    def write(self, partition: int, tables: Iterable[ArrowArray]) -> PartitionWritten:
        """Write a partition; nothing, if an attempt before this one has written it.

        An attempt that is still under way elsewhere is fenced first: it cannot commit any more.

        Args:
            partition: its number, the same in each attempt.
            tables: its rows, in parts: Arrow record batches, tables or data frames, as for
                :meth:`kprod.KafkaProducer.send_table`.

        Raises:
            ProducerFencedError: a later attempt has taken over.
            TransactionAbortableError: a row was not written, or it took longer than
                ``transaction_timeout_ms``.
            IllegalStateError: the job id was used by a job with another number of partitions.
            KafkaError, TypeError, ValueError: as ``send_table()``. Nothing of the partition becomes visible
                to readers of committed records, unless this is a KafkaTimeoutError of the commit, whose
                outcome the next attempt finds out.
        """
        if not self.exactly_once:
            with KafkaProducer(dict(self.options)) as producer:
                return PartitionWritten(partition, self._send(producer, tables), True)
        name = f"{self.job_id}-{partition}"
        options = {"transaction_timeout_ms": TRANSACTION_TIMEOUT_MS} | {
            key.replace(".", "_"): value for key, value in self.options.items()
        }
        with KafkaProducer({**options, "transactional_id": name}) as producer:
            # What an earlier attempt left open is aborted, and where it was committing that is waited for.
            # Only then can the record of completion be trusted: whoever has begun before cannot add it later.
            producer.init_transactions()
            earlier = self._completed(producer, name)
            if earlier is not None:
                logger.info("%s: partition %d was committed before (%d rows)", name, partition, earlier)
                return PartitionWritten(partition, earlier, False)
            with producer.transaction():
                rows = self._send(producer, tables)
                note = json.dumps({"rows": rows, "partitions": self.partitions})
                # The offset is the number of rows: it and the rows become visible together, or not at all.
                producer.send_offsets_to_transaction(
                    {TopicPartition(self.topic, 0): OffsetAndMetadata(rows, note, -1)}, name
                )
        return PartitionWritten(partition, rows, True)

    def _completed(self, producer: KafkaProducer, name: str) -> int | None:
        """How many rows an earlier attempt has committed; None: there is none that has."""
        timeout_s = producer.config["max_block_ms"] / 1000
        found = producer.engine.committed_offset(name, self.topic, 0, timeout_s)
        if found is None:
            return None
        try:
            before = json.loads(found.metadata)["partitions"]
        except (ValueError, TypeError, KeyError):
            raise IllegalStateError(
                f"the consumer group {name!r} has an offset in {self.topic} that is not a record of "
                "completion: it belongs to something else. Choose another job_id"
            ) from None
        if None not in (before, self.partitions) and before != self.partitions:
            raise IllegalStateError(
                f"job {self.job_id!r} was begun with {before} partitions and has {self.partitions} now: "
                "which rows are written is not known. Use as many as before, or another job_id to write all"
            )
        return found.offset

    def _send(self, producer: KafkaProducer, tables: Iterable[ArrowArray]) -> int:
        """Send all rows and count them. What fails is raised here or, in a transaction, by its commit."""
        rows = 0
        under_way: collections.deque[BulkDeliveryFuture] = collections.deque()
        for table in tables:
            future = producer.send_table(
                self.topic, table, self.values, self.keys, self.headers, self.timestamps
            )
            rows += len(future)
            if self.exactly_once:
                continue
            under_way.append(future)
            while under_way and under_way[0].done():
                under_way.popleft().get()
        if under_way:
            producer.flush()
        for future in under_way:
            future.get()
        return rows
