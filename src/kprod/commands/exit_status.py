"""How a command ends."""

from __future__ import annotations

import enum


class ExitStatus(enum.IntEnum):
    """Exit statuses of all commands; scripts rely on them."""

    OK = 0
    """Every record was acknowledged (and, for ``demo``, found again)."""
    FAILED = 1
    """Some records failed, or a check found something wrong."""
    UNUSABLE = 2
    """Nothing could be done: arguments, options, files or the connection. The same as argparse's."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM; what was read before is acknowledged or reported. The shell's 128 + SIGINT."""


class CommandError(Exception):
    """The command cannot do its work, ``ExitStatus.UNUSABLE``; the message says why and what to do."""
