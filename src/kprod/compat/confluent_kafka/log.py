"""The ``logger`` of a configuration gets what kprod logs about that producer, in librdkafka's form.

librdkafka's lines are ``FACILITY [client] text``; the facility here is the part of kprod that speaks.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable

_SOURCE = "kprod"


class _Forwarder(logging.Handler):
    """Gives the lines of one client to the application's logger."""

    def __init__(self, logger: logging.Logger, client_id: str) -> None:
        super().__init__()
        self._logger = logger
        self._client_id = client_id
        self._prefix = f"{client_id}: "

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith(self._prefix):
            write(
                self._logger,
                record.levelno,
                record.module.upper(),
                self._client_id,
                text.removeprefix(self._prefix),
            )


def write(logger: logging.Logger, level: int, facility: str, client_id: str, text: str) -> None:
    """One line in librdkafka's form.

    Args:
        logger: the application's.
        level: of ``logging``.
        facility: which part speaks, in capitals.
        client_id: ``client.id``.
        text: the rest.
    """
    logger.log(level, "%s [%s]: %s", facility, client_id, text)


def forward(owner: object, logger: logging.Logger, client_id: str) -> Callable[[], object]:
    """Let an application's logger have the lines that begin with a ``client.id``.

    Producers that share a ``client.id`` share their lines. A logger that gets kprod's lines anyway (kprod's
    own loggers and the root) does not get them twice.

    Args:
        owner: it ends when this is collected.
        logger: the application's.
        client_id: the client.

    Returns:
        What ends it.
    """
    if logger.name == "root" or logger.name.partition(".")[0] == _SOURCE:
        return lambda: None
    handler = _Forwarder(logger, client_id)
    source = logging.getLogger(_SOURCE)
    source.addHandler(handler)
    return weakref.finalize(owner, source.removeHandler, handler)
