"""Immutable values: fields, defaults, equality, and what they refuse."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from kprod.cluster.metadata import Broker, ClusterSnapshot, Leader
from kprod.values import Value


class Point(Value):
    x: int
    y: int = 0


class Even(Value):
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError(f"{self.number} is odd")


def test_fields_are_given_by_position_or_by_name_and_have_defaults() -> None:
    assert (Point(1, 2).x, Point(1, 2).y) == (1, 2)
    assert Point(y=2, x=1) == Point(1, 2)
    assert Point(1) == Point(1, 0)


@pytest.mark.parametrize(
    ("values", "named", "problem"),
    [
        ((), {}, "misses the field 'x'"),
        ((), {"y": 1}, "misses the field 'x'"),
        ((1, 2, 3), {}, "takes 2 fields, got 3"),
        ((1,), {"x": 2}, "got two values for the field 'x'"),
        ((1,), {"z": 2}, "has no field 'z'"),
    ],
)
def test_what_does_not_fit_the_fields_is_refused_by_name(
    values: tuple[int, ...], named: dict[str, int], problem: str
) -> None:
    with pytest.raises(TypeError, match=problem):
        Point(*values, **named)


def test_a_class_checks_its_fields_also_when_they_are_replaced() -> None:
    with pytest.raises(ValueError, match="3 is odd"):
        Even(3)
    with pytest.raises(ValueError, match="5 is odd"):
        Even(2).replaced(number=5)


def test_fields_cannot_be_set_or_deleted() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="Point is immutable: 'x' cannot be set"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="Point is immutable: 'x' cannot be deleted"):
        del point.x
    with pytest.raises(AttributeError, match="'z' cannot be set"):
        point.z = 2  # type: ignore[attr-defined]
    assert point == Point(1)


def test_equality_and_hash_go_by_class_and_fields() -> None:
    assert Point(1, 2) != Point(2, 1)
    assert hash(Point(x=1, y=2)) == hash(Point(y=2, x=1))
    assert len({Point(1), Point(1), Point(2)}) == 2
    assert Leader(1, 2) != Point(1, 2)
    assert Point(1) != (1, 0)


def test_replaced_makes_another_and_leaves_the_first() -> None:
    point = Point(1, 2)
    assert point.replaced(y=3) == Point(1, 3)
    assert point == Point(1, 2)
    with pytest.raises(TypeError, match="has no field 'z'"):
        point.replaced(z=3)


def test_it_shows_its_fields() -> None:
    assert repr(Point(1)) == "Point(x=1, y=0)"
    assert repr(Broker(1, "a", 9092)) == "Broker(node_id=1, host='a', port=9092, rack=None)"


def test_it_is_copied_and_pickled() -> None:
    for value in (Point(1, 2), Broker(1, "a", 9092, "rack")):
        assert copy.copy(value) == value
        assert copy.deepcopy(value) == value
        assert pickle.loads(pickle.dumps(value)) == value


def test_it_takes_part_in_structural_matching() -> None:
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)
        case _:
            pytest.fail("not matched")


def test_signature_is_that_of_the_fields() -> None:
    assert str(inspect.signature(Point)) == "(x: 'int', y: 'int' = 0)"
    assert list(inspect.signature(ClusterSnapshot).parameters)[:2] == ["cluster_id", "controller_id"]
