"""Options of the producer on the command line: where they may stand, and which of them wins."""

from __future__ import annotations

import argparse
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from kprod.commands.exit_status import CommandError
from kprod.commands.properties import read_properties
from kprod.config import OPTIONS, ProducerConfig
from kprod.errors import KafkaConfigurationError, KafkaError
from kprod.producer import KafkaProducer

BOOTSTRAP_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"

_NAME_OF = {name: option.name for option in OPTIONS.values() for name in (option.name, *option.aliases)}
_SERIALIZERS = ("key_serializer", "value_serializer")
# Applications that share their properties file with us produce in transactions; these commands do not.
_TRANSACTIONAL = "transactional_id"


def add_arguments(parser: argparse.ArgumentParser, *, with_config: bool = True) -> None:
    """Add what every command needs to reach a cluster.

    Args:
        parser: the command's.
        with_config: also --config and --config-file; ``perf`` calls them by the names of Java's tool.
    """
    group = parser.add_argument_group("producer")
    group.add_argument(
        "-b",
        "--bootstrap",
        "--bootstrap-server",
        dest="bootstrap",
        metavar="HOST:PORT,...",
        help=f"brokers to ask first (default: ${BOOTSTRAP_VARIABLE}, else localhost:9092)",
    )
    if with_config:
        group.add_argument(
            "-c",
            "--config",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="an option of the producer, as in docs/options.md or Java's; may be repeated",
        )
        group.add_argument(
            "--config-file",
            metavar="FILE",
            help="a Java properties file with options; --config goes before it",
        )
    group.add_argument(
        "--compression", metavar="CODEC", help="none, gzip, snappy, lz4 or zstd (compression.type)"
    )
    group.add_argument("--acks", metavar="0|1|all", help="when a record counts as written (default: all)")


def gather(
    args: argparse.Namespace,
    *,
    files: Iterable[str | None] = (),
    assignments: Iterable[str] = (),
    defaults: Mapping[str, object] | None = None,
) -> tuple[dict[str, object], ProducerConfig]:
    """The options of a command's producer, checked.

    The more particular wins: an argument of its own (--acks) over an assignment (--config acks=1) over a
    file over the command's defaults. Names may be dotted or have underscores.

    Args:
        args: with what :func:`add_arguments` added.
        files: paths of property files; of an option in two of them the later counts.
        assignments: texts NAME=VALUE.
        defaults: the command's own, for options given nowhere.

    Returns:
        The options by kprod's names, and what becomes of them.

    Raises:
        CommandError: an option is unknown or a value not accepted.
    """
    options: dict[str, object] = {}
    for path in files:
        if path is not None:
            options |= _canonical(read_properties(path))
    options |= _canonical(dict(_split(text) for text in assignments))
    if _TRANSACTIONAL in options and options[_TRANSACTIONAL] not in (None, ""):
        raise CommandError(
            "transactional.id is set, but records of this command are not part of a transaction; "
            "leave the option out: --config transactional.id="
        )
    for name in _SERIALIZERS:
        # Files shared with a Java application name its serializers; keys and values are bytes here.
        options.pop(name, None)
    for name, value in (
        ("bootstrap_servers", args.bootstrap),
        ("compression_type", args.compression),
        ("acks", args.acks),
    ):
        if value is not None:
            options[name] = value
    options.setdefault("bootstrap_servers", os.environ.get(BOOTSTRAP_VARIABLE) or "localhost:9092")
    options = {**(defaults or {}), **options}
    try:
        with warnings.catch_warnings():
            # The producer itself gives them once more.
            warnings.simplefilter("ignore", UserWarning)
            return options, ProducerConfig.from_options(options)
    except KafkaConfigurationError as error:
        raise CommandError(_message(error)) from None


def connect(options: Mapping[str, object], **more: Any) -> tuple[KafkaProducer, list[str]]:
    """A producer that has reached a broker.

    Args:
        options: from :func:`gather`.
        **more: options as keyword arguments.

    Returns:
        The producer, and its warnings about options.

    Raises:
        CommandError: no broker could be reached, or the options are not accepted together.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            producer = KafkaProducer(options, **more)
    except KafkaError as error:
        raise CommandError(_message(error)) from None
    return producer, [str(warning.message) for warning in caught]


def _split(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name.strip():
        # What follows the name may be a password.
        shown = re.split(r"[^\w.-]", text.strip(), maxsplit=1)[0]
        raise CommandError(
            f"an option of the producer is written NAME=VALUE; there is no '=' after {shown!r}"
            if shown and not separator
            else "an option of the producer is written NAME=VALUE; there is no name before '='"
        )
    return name.strip(), value.strip()


def _canonical(options: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for given, value in options.items():
        name = given.replace(".", "_")
        name = _NAME_OF.get(name, given)
        if name in found:
            raise CommandError(f"the option {name} is given twice, under two names; keep one of them")
        found[name] = value
    return found


def _message(error: KafkaError) -> str:
    """The error without the name of its class, which says nothing to whoever types a command."""
    return str(error.args[0]) if error.args else str(error)
