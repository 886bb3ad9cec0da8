"""The ``kprod`` command: which commands there are, and what every one of them has in common."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from kprod._version import __version__
from kprod.commands import demo, perf, produce
from kprod.commands.exit_status import CommandError, ExitStatus

_COMMANDS: dict[str, ModuleType] = {"produce": produce, "perf": perf, "demo": demo}

_EPILOG = "exit status: 0 everything acknowledged, 1 some records failed, 2 nothing could be done (usage, \
options, connection), 130 interrupted"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions, and names an option's value once."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        values = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {values}"


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line; its result has the chosen command's ``run`` function as ``run``."""
    parser = argparse.ArgumentParser(
        prog="kprod",
        description="Send records to Apache Kafka, measure how fast that is, or see it work without Kafka.",
        epilog=_EPILOG,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kprod {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    for name, module in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.DESCRIPTION,
            epilog=_EPILOG,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the arguments without the program's name; None: those of the process.

    Returns:
        The exit status, see :class:`kprod.commands.exit_status.ExitStatus`.

    Raises:
        SystemExit: the arguments are not valid (status 2), or --help or --version was given (status 0).
    """
    args = build_parser().parse_args(argv)
    handler = _StderrHandler()
    logger = logging.getLogger("kprod")
    logger.addHandler(handler)
    try:
        return int(args.run(args))
    except CommandError as error:
        sys.stderr.write(f"kprod {args.command}: error: {error}\n")
        return ExitStatus.UNUSABLE
    except KeyboardInterrupt:
        sys.stderr.write("\nkprod: interrupted\n")
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`). Python flushes stdout again at exit, into nothing then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitStatus.FAILED
    finally:
        logger.removeHandler(handler)


class _StderrHandler(logging.Handler):
    """Warnings of the library, on what is stderr at the moment: a progress display may stand in for it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("kprod: %(levelname)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        try:
            sys.stderr.write(self.format(record) + "\n")
        except Exception:
            self.handleError(record)
