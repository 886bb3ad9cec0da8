"""Extension of griffe for the API reference (mkdocs.yml).

Docstrings of kprod are written for ``help()``: with roles such as ``:class:`KafkaError``` and with doctests.
In the reference they become links and blocks of code. Those of the compiled modules stand in the modules,
their signatures and annotations in the stubs: the one is put to the other.
"""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|meth|func|mod|attr|data|exc):`([~!]?)([^`<]+?)`")
_SIGNATURE = re.compile(r"\A\w+(?:\.\w+)*\([^\n]*\)(?: -> [^\n]*)?\n+")
_DOCTEST = re.compile(r"^( *)>>> .*\n(?:\1\S.*\n|\1 +.*\n)*", re.MULTILINE)
_PAGE = re.compile(r"\bdocs/([\w-]+)\.md\b")
_LITERAL = re.compile(r"^( *)(\S.*)::\n\n((?:\1 {4,}.*\n|\n)+)", re.MULTILINE)


_EVIDENT = {"class-attribute", "instance-attribute", "module-attribute", "method descriptor"}
"""Labels that say nothing to a reader."""


class KprodDocstrings(griffe.Extension):
    """Completes and converts docstrings."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Walk the whole package when it is loaded."""
        # Modules that do not import an error name it under "Raises:" all the same.
        for name, error in pkg["errors"].members.items():
            if isinstance(error, griffe.Class) and name not in pkg.members:
                pkg[name] = griffe.Alias(name, error)
        self._visit(pkg)

    def _visit(self, parent: griffe.Object) -> None:
        for member in list(parent.members.values()):
            if not isinstance(member, griffe.Object):
                continue  # an alias: what it stands for is visited where it is defined
            if member.name == "__init__" and _is_objects(member):
                del parent.members["__init__"]  # the class is not for the reader to make
                continue
            member.labels -= _EVIDENT
            if member.docstring is None and "._core." in member.path:
                _take_docstring(member)
            if member.docstring is not None:
                member.docstring.value = converted(member.docstring.value, member)
            self._visit(member)


def _is_objects(constructor: griffe.Object) -> bool:
    """Whether a class that is compiled has no constructor but object's."""
    said = constructor.docstring
    return said is not None and said.value.split() == str(object.__init__.__doc__).split()


def _take_docstring(member: griffe.Object) -> None:
    """Read the docstring of a compiled object, whose stub has none."""
    found: Any = importlib.import_module(member.module.path)
    for name in member.path.removeprefix(f"{member.module.path}.").split("."):
        found = getattr(found, name, None)
    text = getattr(found, "__doc__", None)
    # What every class has says nothing about this one.
    if isinstance(text, str) and text != object.__init__.__doc__:
        member.docstring = griffe.Docstring(inspect.cleandoc(text), lineno=1, parent=member)


def converted(text: str, where: griffe.Object) -> str:
    """A docstring as Markdown: roles become links to what the reference has, doctests blocks of code."""
    text = _SIGNATURE.sub("", text) + "\n"
    text = _DOCTEST.sub(_block, text)
    text = _LITERAL.sub(lambda found: f"{found[1]}{found[2]}:\n\n{_fenced(found[3], found[1])}", text)
    text = _PAGE.sub(r'<a href="../\1.html"><code>\1</code></a>', text)
    return _ROLE.sub(lambda found: _reference(found[1], found[2].strip(), where), text).rstrip("\n")


def _block(found: re.Match[str]) -> str:
    lines = [re.sub(r"\s*# doctest: .*", "", line) for line in found[0].splitlines()]
    return _fenced("\n".join(lines), found[1])


def _fenced(code: str, indent: str) -> str:
    lines = inspect.cleandoc(code).splitlines()
    return "\n".join([f"{indent}{line}".rstrip() for line in ("```python", *lines, "```")]) + "\n"


def _reference(mark: str, name: str, where: griffe.Object) -> str:
    shown = name.rpartition(".")[2] if mark == "~" else name
    try:
        path = name if name.startswith("kprod.") else where.resolve(name)
    except griffe.NameResolutionError:
        return f"`{shown}`"
    return f'<autoref optional identifier="{path}"><code>{shown}</code></autoref>'
