"""Subject name strategies: under which subject the schema of a record is registered.

A strategy is a function of a context (with ``topic``, ``field`` and ``headers``) and the name of the record's
type, as confluent-kafka's are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kprod.errors import KafkaConfigurationError

SubjectNameStrategy = Callable[[Any, "str | None"], "str | None"]
"""``f(context, record_name)`` gives the subject."""


def topic_subject_name_strategy(ctx: Any, record_name: str | None) -> str | None:
    """``{topic}-key`` or ``{topic}-value``: all records of a topic have one type. The default."""
    return f"{ctx.topic}-{ctx.field}"


def record_subject_name_strategy(ctx: Any, record_name: str | None) -> str | None:
    """The full name of the record's type: it evolves alike in all topics."""
    return record_name


def topic_record_subject_name_strategy(ctx: Any, record_name: str | None) -> str | None:
    """``{topic}-{record name}``: a topic may have several types."""
    return None if record_name is None else f"{ctx.topic}-{record_name}"


_BY_NAME: Mapping[str, SubjectNameStrategy] = {
    "topic": topic_subject_name_strategy,
    "record": record_subject_name_strategy,
    "topic_record": topic_record_subject_name_strategy,
    "TopicNameStrategy": topic_subject_name_strategy,
    "RecordNameStrategy": record_subject_name_strategy,
    "TopicRecordNameStrategy": topic_record_subject_name_strategy,
}


def subject_name_strategy(given: str | SubjectNameStrategy) -> SubjectNameStrategy:
    """A strategy by name (``topic``, ``record``, ``topic_record``, or the Java class's), or as it is.

    Raises:
        KafkaConfigurationError: it is neither a known name nor callable.
    """
    if isinstance(given, str):
        found = _BY_NAME.get(given.rpartition(".")[2]) or _BY_NAME.get(given.lower())
        if found is not None:
            return found
    elif callable(given):
        return given
    raise KafkaConfigurationError(
        f"subject_name_strategy={given!r}: must be 'topic', 'record', 'topic_record', or a function of "
        f"(context, record name) that returns the subject"
    )
