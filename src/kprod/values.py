"""Immutable values with named fields, for classes that ``import kprod`` makes.

What ``@dataclass(frozen=True)`` does, without what that costs at import time: it compiles half a dozen
methods for every class, and needs ``inspect``; together that was a third of ``import kprod``. Modules that
are imported only when they are used have dataclasses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from inspect import Signature

    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: Any) -> Any:
        """What type checkers know of Value."""
        return lambda cls: cls


V = TypeVar("V", bound="Value")

_set = object.__setattr__


class _FieldsSignature:
    """``__signature__`` of a class: its fields, for ``help()`` and ``inspect``."""

    def __get__(self, instance: Any, owner: type[Value]) -> Signature:
        from inspect import Parameter, Signature

        return Signature(
            [
                Parameter(
                    name,
                    Parameter.POSITIONAL_OR_KEYWORD,
                    default=owner._defaults.get(name, Parameter.empty),
                    annotation=owner.__annotations__[name],
                )
                for name in owner.__slots__
            ]
        )


class _ValueType(type):
    """Makes slots of a class body's annotations, and puts the defaults where they do not hide the slots."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _ValueType:
        fields = body.setdefault("__slots__", tuple(body["__annotations__"]))
        body["__match_args__"] = fields
        body["_defaults"] = {field: body.pop(field) for field in fields if field in body}
        return super().__new__(cls, name, bases, body)


@dataclass_transform(frozen_default=True)
class Value(metaclass=_ValueType):
    """A base class: annotations of a class body are its fields, in order, class attributes their defaults.

    Fields are given by position or by name, and cannot be set or deleted afterwards. Two values are equal if
    they are of the same class and all their fields are equal. There is no ``__dict__``: whatever shows the
    attributes of objects goes through ``repr()``, which may hide some. A subclass checks its fields in
    ``__post_init__()``. Fields are not inherited.

    Raises:
        TypeError: a field without a default is missing, is given twice, or there is none of that name.
        AttributeError: a field is set or deleted.
    """

    __slots__: ClassVar[tuple[str, ...]] = ()
    __signature__ = _FieldsSignature()
    if TYPE_CHECKING:
        _defaults: ClassVar[dict[str, Any]]

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = self.__slots__
        if named or len(values) != len(fields):
            values = self._complete(values, named)
        for name, value in zip(fields, values, strict=True):
            _set(self, name, value)
        self.__post_init__()

    def _complete(self, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        """The values of all fields, in order, of those that were given and the defaults."""
        fields = self.__slots__
        if len(values) > len(fields):
            raise TypeError(f"{type(self).__name__}() takes {len(fields)} fields, got {len(values)}")
        given = dict(zip(fields, values, strict=False))
        for name in named:
            if name in given or name not in fields:
                problem = "got two values for the field" if name in given else "has no field"
                raise TypeError(f"{type(self).__name__}() {problem} {name!r}")
        made = {**self._defaults, **given, **named}
        for name in fields:
            if name not in made:
                raise TypeError(f"{type(self).__name__}() misses the field {name!r}")
        return tuple([made[name] for name in fields])

    def __post_init__(self) -> None:
        """Check the fields."""

    def replaced(self: V, **changes: Any) -> V:
        """The same with other values of some fields."""
        return type(self)(**{**dict(zip(self.__slots__, self._fields(), strict=True)), **changes})

    def _fields(self) -> tuple[Any, ...]:
        return tuple([getattr(self, name) for name in self.__slots__])

    if not TYPE_CHECKING:  # type checkers would let any attribute be set where there is a __setattr__()

        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be set")

        def __delattr__(self, name: str) -> None:
            raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((type(self), self._fields()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._fields()

    def __repr__(self) -> str:
        fields = (f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({', '.join(fields)})"
