"""Offsets to commit with a transaction, in the shapes that applications have them in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def plain_offsets(offsets: Any) -> dict[tuple[str, int], tuple[int, int, str | None]]:
    """Offsets as the transaction manager takes them: (topic, partition) to (offset, leader epoch, metadata).

    Args:
        offsets: ``{TopicPartition: OffsetAndMetadata}`` (kafka-python's, this package's, or plain tuples and
            ints), or confluent-kafka's list of TopicPartition objects that carry their offset.

    Raises:
        TypeError: a topic, partition or offset has the wrong type.
        ValueError: an offset is below 0.
    """
    plain: dict[tuple[str, int], tuple[int, int, str | None]] = {}
    if not isinstance(offsets, Mapping):
        for place in offsets:
            epoch = getattr(place, "leader_epoch", None)
            plain[(place.topic, place.partition)] = (
                place.offset,
                -1 if epoch is None else epoch,
                getattr(place, "metadata", None),
            )
    else:
        for place, value in offsets.items():
            topic, partition = (
                (place.topic, place.partition)
                if hasattr(place, "partition") and hasattr(place, "topic")
                else place
            )
            if isinstance(value, int):
                plain[(topic, partition)] = (value, -1, None)
            elif hasattr(value, "offset"):
                epoch = getattr(value, "leader_epoch", None)
                plain[(topic, partition)] = (
                    value.offset,
                    -1 if epoch is None else epoch,
                    getattr(value, "metadata", None),
                )
            else:
                plain[(topic, partition)] = (value[0], -1, value[1] if len(value) > 1 else None)
    for (topic, partition), (offset, _, _) in plain.items():
        if not isinstance(topic, str) or not isinstance(partition, int) or not isinstance(offset, int):
            raise TypeError(
                "offsets must map TopicPartition to OffsetAndMetadata or int, "
                f"got {(topic, partition)!r}: {offset!r}"
            )
        if offset < 0:
            raise ValueError(f"the offset of {topic}-{partition} must be >= 0, got {offset}")
    return plain
