"""What a function of the user takes. ``inspect`` is imported when there is one to look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inspect import Parameter


def positional_parameters(function: Callable[..., Any]) -> list[Parameter] | None:
    """The parameters that can be given by position; None if not known (C functions, ``*args``)."""
    from inspect import Parameter, signature

    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    by_position = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter for parameter in parameters if parameter.kind in by_position]


def is_required(parameter: Parameter) -> bool:
    """Whether it has no default."""
    return parameter.default is parameter.empty
