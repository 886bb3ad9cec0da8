"""What a SASL mechanism is: tokens in, tokens out."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Mechanism(ABC):
    """The client's side of one SASL exchange (RFC 4422). It does no input or output with the broker.

    A mechanism is made for every authentication and used once. :meth:`initial` may fetch credentials, so it
    can take long; it is called before anything is sent.
    """

    name: str
    """The registered name, as in SaslHandshake."""

    complete = False
    """Whether this side is content: the exchange may end with the broker's next answer."""

    @abstractmethod
    def initial(self) -> bytes:
        """The first token.

        Raises:
            AuthenticationFailedError: there are no (usable) credentials.
        """

    @abstractmethod
    def answer(self, challenge: bytes) -> bytes | None:
        """What to answer to the broker's token.

        Returns:
            The next token; None: nothing more is to be sent, and :attr:`complete` is set.

        Raises:
            AuthenticationFailedError: the broker's token is not acceptable.
        """

    def secrets(self) -> tuple[str, ...]:
        """What was used and may show nowhere, should the broker repeat it."""
        return ()

    def is_slow(self, challenge: bytes) -> bool:
        """Whether :meth:`answer` to this token takes long: hashing passwords, asking other servers."""
        return False
