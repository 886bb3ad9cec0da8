"""The transactions of a MockProducer: the same states and refusals as the real one, decided at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kprod import errors
from kprod.engine.offsets import plain_offsets
from kprod.errors import KafkaError
from kprod.transactions.manager import group_metadata_fields
from kprod.transactions.prepared import PreparedTxnState, prepared_state
from kprod.transactions.states import State

MOCK_PRODUCER_ID: Final = 1000
"""In the names of prepared transactions."""


class MockTransactions:
    """The state of a transaction and the offsets in it.

    Args:
        transactional_id: the option; without one every call is refused.
        two_phase_commit: the option transaction_two_phase_commit_enable.
    """

    def __init__(self, transactional_id: str | None, two_phase_commit: bool = False) -> None:
        self._transactional_id = transactional_id
        self._two_phase_commit = two_phase_commit
        self._prepared = PreparedTxnState()
        self.kept: PreparedTxnState | None = None
        self._epoch = 0
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

    def init(self, keep_prepared_txn: bool = False) -> None:
        """init_transactions()."""
        if keep_prepared_txn:
            self._check_two_phase_commit("init_transactions(keep_prepared_txn=True)")
        self._check("init_transactions()", State.UNINITIALIZED)
        self.state = State.READY
        if keep_prepared_txn and self.kept is not None:
            self._prepared, self.state = self.kept, State.PREPARED

    def begin(self) -> None:
        """begin_transaction()."""
        self._check("begin_transaction()", State.READY)
        self.state = State.IN_TRANSACTION
        self._epoch += 1

    def send_offsets(self, offsets: Mapping[Any, Any], group_metadata: Any) -> None:
        """send_offsets_to_transaction()."""
        self._check("send_offsets_to_transaction()", State.IN_TRANSACTION)
        group_id = group_metadata_fields(group_metadata)[0]
        plain = {place: offset for place, (offset, _, _) in plain_offsets(offsets).items()}
        self._offsets.setdefault(group_id, {}).update(plain)

    def check_prepare(self) -> None:
        """Raise what prepare_transaction() raises."""
        self._check_two_phase_commit("prepare_transaction()")
        self._check("prepare_transaction()", State.IN_TRANSACTION)

    def prepare(self) -> PreparedTxnState:
        """prepare_transaction(), when all records are decided."""
        self.check_prepare()
        self.state = State.PREPARED
        self._prepared = PreparedTxnState(MOCK_PRODUCER_ID, self._epoch)
        return self._prepared

    def commits_prepared(self, state: PreparedTxnState | str) -> bool:
        """Whether complete_transaction() commits; the error where nothing is prepared."""
        kept = prepared_state(state)
        self._check("complete_transaction()", State.PREPARED)
        return kept == self._prepared

    def _check_two_phase_commit(self, what: str) -> None:
        if not self._two_phase_commit:
            raise errors.IllegalStateError(
                f"{what} needs the option transaction_two_phase_commit_enable=True"
            )

    def end(self, what: str, commit: bool) -> None:
        """commit_transaction() or abort_transaction()."""
        self._check(what, State.IN_TRANSACTION, State.PREPARED)
        self.state = State.READY
        if commit:
            self.commits += 1
            for group_id, offsets in self._offsets.items():
                self.committed_offsets.setdefault(group_id, {}).update(offsets)
        else:
            self.aborts += 1
        self._offsets.clear()

    def _check(self, what: str, *states: State) -> None:
        if self._transactional_id is None:
            raise errors.IllegalStateError(f"{what} needs the option transactional_id")
        if self._fenced is not None:
            self.state = State.FATAL_ERROR
            raise self._fenced
        if self.state not in states:
            raise errors.IllegalStateError(f"{what} is not possible, the producer is {self.state.value}")
