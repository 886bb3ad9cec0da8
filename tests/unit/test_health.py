"""The verdict of producer.healthy(), from figures."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from kprod.errors import ProducerFencedError
from kprod.health import Health, judge

WELL: dict[str, Any] = {
    "closed": False,
    "forked": False,
    "fatal_error": None,
    "connected": True,
    "trouble": None,
    "oldest_record_age": 0.0,
    "unacknowledged_batches": 0,
    "buffer_share": 0.0,
    "waiting_threads": 0,
    "brokers_away": (),
    "max_record_age": 60.0,
    "max_buffer_share": 0.9,
}


def verdict(**changed: Any) -> Health:
    return judge(**{**WELL, **changed})


def test_nothing_is_wrong() -> None:
    assert verdict()
    assert verdict().reasons == ()
    assert verdict(connected=False), "without records there need be no connection"
    assert verdict(oldest_record_age=59.0, buffer_share=0.9)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"closed": True}, "is closed"),
        ({"forked": True}, "before a fork"),
        ({"fatal_error": ProducerFencedError("another one")}, "cannot send any more: .*another one"),
        ({"connected": False, "trouble": "a:1: refused"}, "no broker is connected: a:1: refused"),
        ({"brokers_away": (2, 3)}, "take nothing: 2, 3"),
        ({"oldest_record_age": 61.25}, r"under way for 61\.2 s, more than 60 s"),
        ({"buffer_share": 0.95}, "95% of buffer_memory"),
        ({"waiting_threads": 2}, r"2 thread\(s\) wait"),
    ],
)
def test_what_is_wrong_is_said(changed: dict[str, Any], reason: str) -> None:
    found = verdict(**changed)
    assert not found
    assert len(found.reasons) == 1
    assert re.search(reason, found.reasons[0])


def test_several_reasons_and_a_json_answer() -> None:
    found = verdict(brokers_away=(1,), oldest_record_age=99.0, buffer_share=1.0)
    assert len(found.reasons) == 3
    answer = json.loads(json.dumps(found.as_dict()))
    assert answer["healthy"] is False
    assert answer["brokers_away"] == [1]
    assert answer["oldest_record_age"] == 99.0
    fenced = json.loads(json.dumps(verdict(fatal_error=ProducerFencedError("x")).as_dict()))
    assert "x" in fenced["fatal_error"]
