"""A PartitionSink whose first attempts end in the worst moments; imported by the engines' workers."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from kprod import KafkaProducer
from kprod.partition_sink import PartitionSink, PartitionWritten

if TYPE_CHECKING:
    from kprod.records import ArrowArray

BEFORE_COMMIT = frozenset({1, 3})
"""The workers of these partitions are killed once all rows are acknowledged and nothing is committed."""
AFTER_COMMIT = frozenset({2})
"""The worker of this partition is killed once it has committed, before the engine learns of it."""
FAILS = frozenset({4})
"""The task of this partition raises an exception, as in BEFORE_COMMIT."""


@dataclasses.dataclass(frozen=True)
class SabotagedSink(PartitionSink):
    """Ends the first attempt of some partitions.

    Args:
        folder: keeps what has been done, over the deaths of workers.
        ancestor: which process is the worker: 0 that of the task, 1 its parent, ...
    """

    folder: str = ""
    ancestor: int = 0

    def write(self, partition: int, tables: Iterable[ArrowArray]) -> PartitionWritten:
        """As PartitionSink.write(), until the worker dies."""
        with Path(self.folder, "attempts").open("a") as file:
            file.write(f"{partition}\n")
        written = super().write(partition, tables)
        if partition in AFTER_COMMIT and self._first("after", partition):
            self._kill()
        return written

    def _send(self, producer: KafkaProducer, tables: Iterable[ArrowArray]) -> int:
        rows = super()._send(producer, tables)
        partition = int(producer.config["transactional_id"].rsplit("-", 1)[1])
        if partition in BEFORE_COMMIT | FAILS and self._first("before", partition):
            producer.flush()
            if partition in FAILS:
                raise OSError("the task fails with all of its rows in Kafka")
            self._kill()
        return rows

    def _first(self, when: str, partition: int) -> bool:
        try:
            Path(self.folder, f"{when}-{partition}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _kill(self) -> None:
        process = os.getpid()
        for _ in range(self.ancestor):
            status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
            process = int(status.split("PPid:")[1].split()[0])
        os.kill(process, signal.SIGKILL)
        signal.pause()  # where it was another process: its end ends this one
