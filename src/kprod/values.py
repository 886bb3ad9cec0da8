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


class _FieldsSignature:
    """``__signature__`` of a class: its fields, for ``help()`` and ``inspect``."""

    def __get__(self, instance: Any, owner: type[Value]) -> Signature:
        from inspect import Parameter, Signature

        return Signature(
            [
                Parameter(
                    name,
                    Parameter.POSITIONAL_OR_KEYWORD,
                    default=getattr(owner, name, Parameter.empty),
                    annotation=owner.__annotations__[name],
                )
                for name in owner._names
            ]
        )


@dataclass_transform(frozen_default=True)
class Value:
    """A base class: annotations of a class body are its fields, in order, class attributes their defaults.

    Fields are given by position or by name, and cannot be set or deleted afterwards. Two values are equal if
    they are of the same class and all their fields are equal. A subclass checks its fields in
    ``__post_init__()``. Fields are not inherited: subclasses of subclasses declare their own.

    Raises:
        TypeError: a field without a default is missing, is given twice, or there is none of that name.
        AttributeError: a field is set or deleted.
    """

    _names: ClassVar[tuple[str, ...]] = ()
    __signature__ = _FieldsSignature()

    def __init_subclass__(cls) -> None:
        cls._names = tuple(cls.__annotations__)
        setattr(cls, "__match_args__", cls._names)  # noqa: B010 - type checkers have their own view of it

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = self._names
        made = self.__dict__
        if len(values) > len(fields):
            raise TypeError(f"{type(self).__name__}() takes {len(fields)} fields, got {len(values)}")
        made.update(zip(fields, values, strict=False))
        for name in named:
            if name in made or name not in fields:
                problem = "got two values for the field" if name in made else "has no field"
                raise TypeError(f"{type(self).__name__}() {problem} {name!r}")
        made.update(named)
        for name in fields:
            if name not in made:
                try:
                    made[name] = getattr(type(self), name)
                except AttributeError:
                    raise TypeError(f"{type(self).__name__}() misses the field {name!r}") from None
        self.__post_init__()

    def __post_init__(self) -> None:
        """Check the fields."""

    def replaced(self: V, **changes: Any) -> V:
        """The same with other values of some fields."""
        return type(self)(**{**self.__dict__, **changes})

    if not TYPE_CHECKING:  # type checkers would let any attribute be set where there is a __setattr__()

        def __setattr__(self, name: str, value: Any) -> None:
            raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be set")

        def __delattr__(self, name: str) -> None:
            raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *(self.__dict__[name] for name in self._names)))

    def __repr__(self) -> str:
        fields = (f"{name}={getattr(self, name)!r}" for name in self._names)
        return f"{type(self).__name__}({', '.join(fields)})"
