"""Records without a key: threads that meet at the sticky partition part, and come together again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, cast

import pytest

from kprod._core.accumulator import Topic

MEETINGS = 8
"""So many in one batch, and a thread turns to a lane of its own."""


class Threads:
    """Some threads, each of which does what it is told."""

    def __init__(self, count: int) -> None:
        self._stack = ExitStack()
        self._pools = [self._stack.enter_context(ThreadPoolExecutor(1)) for _ in range(count)]

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def do(self, thread: int, function: Callable[..., int], **arguments: Any) -> int:
        return self._pools[thread].submit(function, **arguments).result(10)


def topic_of(partitions: int) -> Topic:
    topic = Topic("t", 1, cast(Any, None), 16384, 5000, 0, 0, -1, True, False, 12345)
    topic.set_partition_count(partitions)
    return topic


def test_threads_that_do_not_meet_share_one_choice() -> None:
    topic = topic_of(6)
    with Threads(3) as threads:
        first = threads.do(0, topic.sticky_choice)
        assert [threads.do(i, topic.sticky_choice, met=MEETINGS - 1) for i in range(3)] == [first] * 3
        left = threads.do(1, topic.sticky_choice, left=first)
        assert threads.do(0, topic.sticky_choice) == threads.do(2, topic.sticky_choice) == left


def test_a_batch_that_is_opened_starts_the_count_anew() -> None:
    topic = topic_of(6)
    with Threads(2) as threads:
        first = threads.do(0, topic.sticky_choice)
        for _ in range(5):
            assert threads.do(1, topic.sticky_choice, met=MEETINGS - 1, opened=first) == first


def test_a_thread_that_meets_another_one_often_goes_elsewhere() -> None:
    topic = topic_of(6)
    with Threads(4) as threads:
        first = threads.do(0, topic.sticky_choice)
        chosen = [first] + [threads.do(i, topic.sticky_choice, met=MEETINGS) for i in (1, 2, 3)]
        assert len(set(chosen)) == 4, "each has a partition of its own"
        assert [threads.do(i, topic.sticky_choice) for i in range(4)] == chosen, "and stays there"


def test_full_batches_keep_a_thread_in_its_lane() -> None:
    topic = topic_of(12)
    with Threads(2) as threads:
        first = threads.do(0, topic.sticky_choice)
        mine = threads.do(1, topic.sticky_choice, met=MEETINGS)
        for _ in range(20):
            threads.do(1, topic.sticky_choice, opened=mine)
            following = threads.do(1, topic.sticky_choice, left=mine)
            assert following not in (mine, first)
            mine = following
        assert threads.do(0, topic.sticky_choice) == first, "the other thread is not concerned"


def test_a_batch_that_left_before_it_was_full_brings_a_thread_back() -> None:
    topic = topic_of(6)
    with Threads(2) as threads:
        first = threads.do(0, topic.sticky_choice)
        mine = threads.do(1, topic.sticky_choice, met=MEETINGS)
        assert threads.do(1, topic.sticky_choice, opened=mine) == mine != first
        assert threads.do(1, topic.sticky_choice, opened=mine) == first


@pytest.mark.parametrize("partitions", [1, 2, 3])
def test_more_threads_than_partitions_go_round(partitions: int) -> None:
    topic = topic_of(partitions)
    with Threads(9) as threads:
        for _ in range(3):
            for i in range(9):
                assert 0 <= threads.do(i, topic.sticky_choice, met=MEETINGS) < partitions
        assert {threads.do(i, topic.sticky_choice) for i in range(9)} == set(range(partitions))


def test_lanes_of_partitions_that_are_gone_choose_again() -> None:
    topic = topic_of(50)
    with Threads(6) as threads:
        assert max(threads.do(i, topic.sticky_choice, met=MEETINGS) for i in range(6)) > 1
        topic.set_partition_count(2)
        assert all(threads.do(i, topic.sticky_choice) < 2 for i in range(6))
