"""The transactions of a MockProducer: the same states and refusals as the real one, decided at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kprod import errors
from kprod.engine.offsets import plain_offsets
from kprod.errors import KafkaError
from kprod.transactions.manager import group_metadata_fields
from kprod.transactions.states import State


class MockTransactions:
    """The state of a transaction and the offsets in it.

    Args:
        transactional_id: the option; without one every call is refused.
    """

    def __init__(self, transactional_id: str | None) -> None:
        self._transactional_id = transactional_id
        self._fenced: KafkaError | None = None
        self.state = State.UNINITIALIZED
        self.commits = 0
        self.aborts = 0
        self._offsets: dict[str, dict[tuple[str, int], int]] = {}
        self.committed_offsets: dict[str, dict[tuple[str, int], int]] = {}

    def fence(self) -> None:
        """From now on another producer has the transactional id."""
        self._fenced = errors.ProducerFencedError(
            f"another producer with transactional_id {self._transactional_id!r} has taken over"
        )

    def check_send(self) -> None:
        """Raise what send() raises outside a transaction."""
        if self._transactional_id is not None:
            self._check("send()", State.IN_TRANSACTION)

    def init(self) -> None:
        """init_transactions()."""
        self._check("init_transactions()", State.UNINITIALIZED)
        self.state = State.READY

    def begin(self) -> None:
        """begin_transaction()."""
        self._check("begin_transaction()", State.READY)
        self.state = State.IN_TRANSACTION

    def send_offsets(self, offsets: Mapping[Any, Any], group_metadata: Any) -> None:
        """send_offsets_to_transaction()."""
        self._check("send_offsets_to_transaction()", State.IN_TRANSACTION)
        group_id = group_metadata_fields(group_metadata)[0]
        plain = {place: offset for place, (offset, _, _) in plain_offsets(offsets).items()}
        self._offsets.setdefault(group_id, {}).update(plain)

    def end(self, what: str, commit: bool) -> None:
        """commit_transaction() or abort_transaction()."""
        self._check(what, State.IN_TRANSACTION)
        self.state = State.READY
        if commit:
            self.commits += 1
            for group_id, offsets in self._offsets.items():
                self.committed_offsets.setdefault(group_id, {}).update(offsets)
        else:
            self.aborts += 1
        self._offsets.clear()

    def _check(self, what: str, state: State) -> None:
        if self._transactional_id is None:
            raise errors.IllegalStateError(f"{what} needs the option transactional_id")
        if self._fenced is not None:
            self.state = State.FATAL_ERROR
            raise self._fenced
        if self.state is not state:
            raise errors.IllegalStateError(f"{what} is not possible, the producer is {self.state.value}")
