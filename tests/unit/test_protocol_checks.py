"""What is refused of answers that decode without an error."""

from __future__ import annotations

from typing import Any

import pytest

from kprod.protocol import METADATA, TXN_OFFSET_COMMIT, ProtocolError
from kprod.protocol.checks import MAX_HOLES, check_brokers, check_response


def metadata(*indexes: int, **changes: Any) -> dict[str, Any]:
    rows = [{"partition_index": index, "leader_id": 1, "leader_epoch": 0} for index in indexes]
    return {
        "error_code": 0,
        "brokers": [{"node_id": 1, "host": "kafka", "port": 9092}],
        "topics": [{"name": "t", "error_code": 0, "partitions": rows}],
        **changes,
    }


def test_partitions_that_are_not_named_yet_are_no_mistake() -> None:
    request = {"topics": [{"name": "t"}]}
    check_response(METADATA, request, metadata(0, 3, 7))
    check_response(METADATA, request, metadata(MAX_HOLES))
    with pytest.raises(ProtocolError, match=f"partition {MAX_HOLES + 1} of topic 't', of which it names 1"):
        check_response(METADATA, request, metadata(MAX_HOLES + 1))


def test_an_error_is_never_refused() -> None:
    check_response(METADATA, {"topics": [{"name": "t"}]}, metadata(error_code=129, topics=[], brokers=[]))


def test_all_topics_may_be_asked_for() -> None:
    check_response(METADATA, {"topics": None}, metadata(0))


def test_a_broker_may_be_named_twice_in_the_same_words() -> None:
    check_brokers([(1, "kafka", 9092), (1, "kafka", 9092), (2, "::1", 1), (3, "bücher.example", 65535)])
    with pytest.raises(ProtocolError, match="two brokers with the node id 1"):
        check_brokers([(1, "kafka", 9092), (1, "kafka", 9093)])


@pytest.mark.parametrize("host", ["", "a b", "a\nb", "a\0", "x" * 256])
def test_what_cannot_be_a_host_name(host: str) -> None:
    with pytest.raises(ProtocolError, match="which is none"):
        check_brokers([(1, host, 9092)])


def test_offsets_must_be_answered_for_those_partitions_that_were_committed() -> None:
    def body(*places: tuple[str, int]) -> dict[str, Any]:
        return {"topics": [{"name": name, "partitions": [{"partition_index": i}]} for name, i in places]}

    check_response(TXN_OFFSET_COMMIT, body(("t", 0), ("u", 1)), body(("u", 1), ("t", 0)))
    with pytest.raises(ProtocolError, match="partition 2 of topic 't', which was not asked for"):
        check_response(TXN_OFFSET_COMMIT, body(("t", 0)), body(("t", 2)))
    with pytest.raises(ProtocolError, match="partition 0 of topic 't' was asked for and is not in it"):
        check_response(TXN_OFFSET_COMMIT, body(("t", 0)), body())
