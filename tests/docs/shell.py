"""Checks commands of a shell that stand on a page: that what they call is there, and takes these options."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from kprod import cli
from tests.docs.blocks import ROOT, Block

# Of other projects, or of the shell.
FOREIGN = {
    "kafka-client-metrics.sh",
    "git",
    "gh",
    ".",
    "pre-commit",
    "tail",
    "cd",
    "export",
    "apt-get",
    "npm",
    "docker",
}


def commands(code: str) -> list[list[str]]:
    """The commands of a block as words, the parts of a pipe apart."""
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "|"]:
            if set(word) <= set("|;&<>"):
                if words:
                    found.append(words)
                words = []
            else:
                words.append(word)
    return found


def check(block: Block) -> None:
    """Fail unless each command of the block can be run."""
    for words in commands(block.code):
        while re.fullmatch(r"[A-Z_]+=.*", words[0]):
            del words[0]
        command, *arguments = words
        if command == "kprod":
            _check_kprod(arguments, block)
        elif command == "make":
            _check_make(arguments, block)
        elif command.startswith("python") or command == "pip":
            _check_python(arguments if command != "pip" else ["-m", "pip", *arguments], block)
        elif "/" in command:
            assert (ROOT / command).exists(), f"{block}: there is no {command}"
        else:
            assert command in FOREIGN, f"{block}: what is {command}? tests/docs/shell.py does not know it"


def _check_kprod(arguments: list[str], block: Block) -> None:
    parser = cli.build_parser()
    if arguments[-1] in ("--help", "--version"):
        return

    def refuse(self: argparse.ArgumentParser, message: str) -> None:
        pytest.fail(f"{block}: kprod {shlex.join(arguments)}: {message}", pytrace=False)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "error", refuse)
        parser.parse_args(arguments)


def _check_make(arguments: list[str], block: Block) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for argument in arguments:
        assert "=" in argument or argument in targets, f"{block}: the Makefile has no target {argument}"


def _check_python(arguments: list[str], block: Block) -> None:
    if arguments[0] == "-c":
        compile(arguments[1], str(block), "exec")
        return
    if arguments[0] != "-m":
        assert (ROOT / arguments[0]).exists(), f"{block}: there is no {arguments[0]}"
        return
    module, *rest = arguments[1:]
    if module == "pip":
        _check_pip(rest, block)
        return
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin, f"{block}: there is no module {module}"
    if not Path(found.origin).is_relative_to(ROOT):
        return
    main = Path(found.origin)
    if main.name == "__init__.py":
        main = main.with_name("__main__.py")
    source = main.read_text(encoding="utf-8")
    for argument in rest:
        option = argument.partition("=")[0]
        if option.startswith("--"):
            assert f'"{option}"' in source, f"{block}: {module} has no option {option}"


def _check_pip(arguments: list[str], block: Block) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for argument in arguments:
        extras = re.fullmatch(r"kprod\[(.*)\]", argument)
        for extra in extras[1].split(",") if extras else ():
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), f"{block}: there is no extra {extra}"
