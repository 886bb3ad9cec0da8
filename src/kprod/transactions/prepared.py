"""What names a prepared transaction (KIP-939): kept by whoever coordinates a two-phase commit."""

from __future__ import annotations

import re

from kprod.values import Value

_TEXT = re.compile(r"([0-9]+):([0-9]+)")
_MAX_ID = 2**63 - 1
_MAX_EPOCH = 2**15 - 1


class PreparedTxnState(Value):
    """Names a prepared transaction: what ``prepare_transaction()`` returns, as Java's class of this name.

    Two are equal if they name the same transaction. ``str()`` gives the text to keep elsewhere, for example
    in the database whose transaction is to end in the same way; :meth:`parse` makes one of it again.

    Args:
        producer_id: the producer id that the transaction was written under; -1: there is no transaction.
        epoch: the epoch it was written under; -1: there is no transaction.

    Raises:
        ValueError: one is -1 and the other is not, or one is out of range.
    """

    producer_id: int = -1
    epoch: int = -1

    def __post_init__(self) -> None:
        names_one = 0 <= self.producer_id <= _MAX_ID and 0 <= self.epoch <= _MAX_EPOCH
        if not names_one and (self.producer_id, self.epoch) != (-1, -1):
            raise ValueError(
                f"producer_id must be 0 to {_MAX_ID} and epoch 0 to {_MAX_EPOCH}, or both -1, not "
                f"{self.producer_id} and {self.epoch}"
            )

    @classmethod
    def parse(cls, text: str) -> PreparedTxnState:
        """The state of its text, ``'producerId:epoch'``; an empty text names no transaction.

        Raises:
            TypeError: it is no str.
            ValueError: it is not the text of a state.
        """
        if not isinstance(text, str):
            raise TypeError(f"the text of a prepared transaction must be a str, not {type(text).__name__}")
        if not text:
            return cls()
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(
                f"the text of a prepared transaction must be 'producerId:epoch', as in '1001:7', not {text!r}"
            )
        return cls(int(found[1]), int(found[2]))

    @property
    def has_transaction(self) -> bool:
        """Whether it names a transaction."""
        return self.producer_id >= 0

    def __str__(self) -> str:
        return f"{self.producer_id}:{self.epoch}" if self.has_transaction else ""


def prepared_state(value: PreparedTxnState | str) -> PreparedTxnState:
    """The state that an application has given, itself or its text.

    Raises:
        TypeError: it is neither.
        ValueError: it is not the text of a state.
    """
    if isinstance(value, PreparedTxnState):
        return value
    if isinstance(value, str):
        return PreparedTxnState.parse(value)
    raise TypeError(
        f"prepared_state must be a PreparedTxnState or its text, not {type(value).__name__}: keep what "
        "prepare_transaction() returns"
    )
