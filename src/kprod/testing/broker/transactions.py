"""The transaction coordinator: producer ids, epochs and transactions (KIP-98, KIP-360, KIP-890, KIP-939).

Markers are written at once when a transaction ends, so the states between the decision and its end
(PrepareCommit, PrepareAbort) are never seen from outside. For a client that has to wait for them, inject
CONCURRENT_TRANSACTIONS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from kprod.testing.broker.cluster import ClusterState, Timer

INVALID_PRODUCER_EPOCH: Final = 47
INVALID_TXN_STATE: Final = 48
INVALID_PRODUCER_ID_MAPPING: Final = 49
INVALID_TRANSACTION_TIMEOUT: Final = 50
PRODUCER_FENCED: Final = 90

MAX_TIMEOUT_MS: Final = 900_000
"""``transaction.max.timeout.ms`` of a broker."""

MAX_EPOCH: Final = 32_767

State = Literal["Empty", "Ongoing", "CompleteCommit", "CompleteAbort"]


@dataclass
class Transaction:
    """What is known of one transactional id."""

    transactional_id: str
    producer_id: int
    epoch: int
    timeout_ms: int
    state: State = "Empty"
    partitions: set[tuple[str, int]] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    last_producer_id: int = -1
    is_v2: bool = False
    """The version of the protocol in which the open transaction was begun."""
    last_epoch: int = -1
    """The epoch before, when its owner was not fenced by the bump: it may ask again, and go on (KIP-360)."""
    timer: Timer | None = None
    two_phase_commit: bool = False
    """It never expires (KIP-939)."""
    written_under: tuple[int, int] | None = None
    """The producer id and epoch of the open transaction, where a successor has kept it and got others."""


class TransactionCoordinator:
    """All transactional ids of the cluster."""

    def __init__(self, cluster: ClusterState) -> None:
        self._cluster = cluster
        self._next_producer_id = 1000
        self.transactions: dict[str, Transaction] = {}

    def new_producer_id(self) -> int:
        """A producer id that nobody has."""
        self._next_producer_id += 1
        return self._next_producer_id

    def init_producer_id(
        self,
        transactional_id: str,
        timeout_ms: int,
        producer_id: int,
        epoch: int,
        *,
        two_phase_commit: bool = False,
        keep_prepared: bool = False,
    ) -> tuple[int, int, int]:
        """Give a transactional producer its id and epoch, fencing the one before.

        Args:
            transactional_id: not empty.
            timeout_ms: after which an open transaction is aborted.
            producer_id: the caller's, -1 when it has none (before version 3 of the request, or at the start).
            epoch: the caller's.
            two_phase_commit: its transactions never expire, and the timeout has no upper bound (KIP-939).
            keep_prepared: the open transaction stays open, for the caller to end (KIP-939).

        Returns:
            Error code, producer id, epoch.
        """
        if timeout_ms <= 0 or (timeout_ms > MAX_TIMEOUT_MS and not two_phase_commit):
            return INVALID_TRANSACTION_TIMEOUT, -1, -1
        transaction = self.transactions.get(transactional_id)
        if transaction is None:
            transaction = Transaction(transactional_id, self.new_producer_id(), 0, timeout_ms)
            transaction.two_phase_commit = two_phase_commit
            self.transactions[transactional_id] = transaction
            return 0, transaction.producer_id, transaction.epoch
        if producer_id >= 0:
            if producer_id not in (transaction.producer_id, transaction.last_producer_id):
                return PRODUCER_FENCED, -1, -1
            is_retry = producer_id == transaction.last_producer_id or epoch == transaction.last_epoch
            if is_retry and transaction.state in ("Empty", "CompleteAbort"):
                return 0, transaction.producer_id, transaction.epoch
            if epoch != transaction.epoch:
                return PRODUCER_FENCED, -1, -1
        keeps = keep_prepared and transaction.state == "Ongoing"
        if keeps:
            transaction.written_under = transaction.written_under or (
                transaction.producer_id,
                transaction.epoch,
            )
        elif transaction.state == "Ongoing":
            self._complete(transaction, commit=False, bump_epoch=True)
        self._bump(transaction)
        # Who asks with its epoch goes on with the next one; who has none is another producer, and fences the
        # last.
        transaction.last_epoch = epoch if producer_id >= 0 else -1
        transaction.timeout_ms = timeout_ms
        transaction.two_phase_commit = two_phase_commit
        if not keeps:
            transaction.state = "Empty"
        return 0, transaction.producer_id, transaction.epoch

    def ongoing(self, transactional_id: str) -> tuple[int, int]:
        """The producer id and epoch under which the open transaction was written; -1, -1: none is open."""
        transaction = self.transactions[transactional_id]
        if transaction.state != "Ongoing":
            return -1, -1
        return transaction.written_under or (transaction.producer_id, transaction.epoch)

    def _bump(self, transaction: Transaction) -> None:
        if transaction.epoch >= MAX_EPOCH - 1:
            transaction.last_producer_id = transaction.producer_id
            transaction.producer_id = self.new_producer_id()
            transaction.epoch = 0
        else:
            transaction.epoch += 1

    def check(self, transactional_id: str, producer_id: int, epoch: int) -> int:
        """The error code for a producer that is not the current one of its transactional id, else 0."""
        transaction = self.transactions.get(transactional_id)
        if transaction is None or transaction.producer_id != producer_id:
            return INVALID_PRODUCER_ID_MAPPING
        if transaction.epoch != epoch:
            return PRODUCER_FENCED
        return 0

    def _begin(self, transaction: Transaction, v2: bool) -> None:
        if transaction.state != "Ongoing":
            transaction.is_v2 = v2
            transaction.state = "Ongoing"
            if transaction.two_phase_commit:
                return
            transaction.timer = self._cluster.schedule(
                transaction.timeout_ms / 1000, lambda: self._expire(transaction)
            )

    def _expire(self, transaction: Transaction) -> None:
        if transaction.state == "Ongoing":
            before = transaction.epoch
            self._complete(transaction, commit=False, bump_epoch=True)
            # In version 1 brokers forget it (TransactionMetadata.prepareFenceProducerEpoch), whatever KIP-588
            # says: who asks with it is fenced, only the one that the abort has made is taken.
            transaction.last_epoch = before if transaction.is_v2 else -1

    def add_partitions(self, transactional_id: str, partitions: set[tuple[str, int]], v2: bool) -> None:
        """Add partitions to the open transaction, or open one; ``v2``: implicitly (KIP-890)."""
        transaction = self.transactions[transactional_id]
        self._begin(transaction, v2)
        transaction.partitions |= partitions

    def add_group(self, transactional_id: str, group: str, v2: bool) -> None:
        """Add the offsets of a consumer group to the open transaction, or open one."""
        transaction = self.transactions[transactional_id]
        self._begin(transaction, v2)
        transaction.groups.add(group)

    def has_partition(self, producer_id: int, topic: str, partition: int) -> bool:
        """Whether a producer's open transaction covers a partition."""
        return any(
            t.producer_id == producer_id and t.state == "Ongoing" and (topic, partition) in t.partitions
            for t in self.transactions.values()
        )

    def has_group(self, transactional_id: str, group: str) -> bool:
        """Whether the open transaction covers a group's offsets."""
        transaction = self.transactions.get(transactional_id)
        return transaction is not None and transaction.state == "Ongoing" and group in transaction.groups

    def end(
        self, transactional_id: str, producer_id: int, epoch: int, commit: bool, bump_epoch: bool
    ) -> tuple[int, int, int]:
        """Commit or abort.

        Args:
            transactional_id: whose transaction.
            producer_id: the caller's.
            epoch: the caller's.
            commit: ``False`` to abort.
            bump_epoch: every transaction ends with a new epoch (transactions v2, KIP-890).

        Returns:
            Error code, and producer id and epoch for the next transaction.
        """
        transaction = self.transactions.get(transactional_id)
        if transaction is None:
            return INVALID_PRODUCER_ID_MAPPING, -1, -1
        done: State = "CompleteCommit" if commit else "CompleteAbort"
        if bump_epoch and transaction.state == done and epoch == transaction.epoch - 1:
            # The answer to the first attempt was lost.
            return 0, transaction.producer_id, transaction.epoch
        error = self.check(transactional_id, producer_id, epoch)
        if error:
            return error, -1, -1
        if transaction.state == "Ongoing":
            self._complete(transaction, commit, bump_epoch)
        elif bump_epoch and not commit:
            # Nothing was added yet; the abort still gives a new epoch, which fences writes under way.
            self._bump(transaction)
            transaction.state = "CompleteAbort"
        elif transaction.state != done:
            return INVALID_TXN_STATE, -1, -1
        return 0, transaction.producer_id, transaction.epoch

    def _complete(self, transaction: Transaction, commit: bool, bump_epoch: bool) -> None:
        cluster = self._cluster
        producer_id = transaction.producer_id
        epoch = transaction.epoch
        if transaction.written_under is not None and transaction.written_under[0] != producer_id:
            # Epochs were used up when a successor kept it; the log knows the producer id before.
            producer_id, epoch = transaction.written_under
        transaction.written_under = None
        if bump_epoch:
            # The markers carry the next epoch, so that what the fenced producer still sends is refused.
            epoch += 1
            self._bump(transaction)
        for topic, index in sorted(transaction.partitions):
            partition = cluster.partition(topic, index)
            if partition is not None:
                partition.log.end_transaction(
                    producer_id, epoch, commit, partition.leader_epoch, cluster.now_ms()
                )
                cluster.appended(partition)
        for group in sorted(transaction.groups):
            cluster.groups.end_transaction(group, transaction.transactional_id, commit)
        transaction.partitions.clear()
        transaction.groups.clear()
        transaction.state = "CompleteCommit" if commit else "CompleteAbort"
        if transaction.timer is not None:
            transaction.timer.cancel()
            transaction.timer = None
