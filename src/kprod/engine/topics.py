"""How application threads get the handle of a topic, waiting for its metadata."""

from __future__ import annotations

import time

from kprod import errors
from kprod._core.accumulator import Topic
from kprod.engine.metadata import Metadata
from kprod.engine.nodes import Nodes
from kprod.engine.shared import Shared, TopicState
from kprod.errors import KafkaError
from kprod.records import check_topic_name


class Topics:
    """Handles of topics, for application threads.

    Args:
        shared: what the threads share.
        nodes: they say why there is no broker to ask.
        metadata: asked for topics that are not known yet.
    """

    def __init__(self, shared: Shared, nodes: Nodes, metadata: Metadata) -> None:
        self._shared = shared
        self._nodes = nodes
        self._metadata = metadata

    def known(self, name: object) -> Topic | None:
        """The handle of a topic that is known, without waiting; None: ask :meth:`handle`."""
        with self._shared.changed:
            state = self._shared.topics.get(name) if isinstance(name, str) else None
            if state is None or state.handle is None:
                return None
            state.last_used = time.monotonic()
            return state.handle

    def handle(self, name: object, max_block_s: float) -> Topic:
        """The handle of a topic; waits for its metadata up to ``max_block_s`` seconds.

        Raises:
            TypeError, ValueError: it is not a topic name.
            KafkaTimeoutError: no metadata came; ``__cause__`` says what the brokers answered, if they did.
            TopicAuthorizationFailedError, InvalidTopicError: the brokers refuse the topic.
            AuthenticationFailedError, ...: they refuse this client.
        """
        topic = check_topic_name(name)
        shared = self._shared
        deadline = time.monotonic() + max_block_s
        with shared.changed:
            state = shared.topics.get(topic)
            if state is None:
                state = shared.topics[topic] = TopicState(topic)
            state.last_used = time.monotonic()
            if state.handle is not None:
                return state.handle
            asked = state.asked
            self._nodes.demand()
            self._metadata.request_refresh()
            while True:
                shared.check_open()
                if state.handle is not None:
                    return state.handle
                if state.asked > asked and state.error:
                    kind = errors.for_code(state.error)
                    if not kind.retriable:
                        raise kind(f"metadata for topic {topic!r} were refused", topic=topic)
                if (refusal := self._nodes.refusal()) is not None:
                    refusal.topic, refusal.persisted = topic, "no"
                    raise refusal
                left = deadline - time.monotonic()
                if left <= 0:
                    raise self._no_metadata(state, max_block_s)
                # In slices, so that a fork or a close is noticed whatever happens.
                shared.changed.wait(min(left, 1.0))

    def _no_metadata(self, state: TopicState, waited_s: float) -> KafkaError:
        if state.asked and state.error:
            cause = errors.for_code(state.error)(topic=state.name)
            detail = f"the brokers answer {errors.name_for_code(state.error)}"
            if state.error == 3:
                detail += (
                    " (the topic does not exist; the broker creates it only if "
                    "auto.create.topics.enable is set)"
                )
            error = errors.KafkaTimeoutError(
                f"no metadata for topic {state.name!r} within max_block_ms ({waited_s * 1000:.0f}): {detail}",
                topic=state.name,
                persisted="no",
            )
            error.__cause__ = cause
            return error
        return errors.KafkaTimeoutError(
            f"no metadata for topic {state.name!r} within max_block_ms ({waited_s * 1000:.0f}): "
            f"no broker could be asked: {self._nodes.report()}",
            topic=state.name,
            persisted="no",
        )
