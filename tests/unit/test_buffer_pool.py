"""The pool that bounds the memory of all batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from kprod._core.buffer_pool import BufferPool


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize(
    ("size", "capacity"),
    [
        (0, 512),
        (1, 512),
        (512, 512),
        (513, 1024),
        (9000, 16000),
        (16000, 16000),
        # 8 steps to a power of two.
        (16001, 16384),
        (16385, 18432),
        (10**6, 2**20),
        (2**20 + 1, 2**20 * 9 // 8),
        # Half of the limit and more is not rounded up: what fits must fit.
        (5 * 10**6, 5 * 10**6),
    ],
)
def test_capacities_are_powers_of_two_then_the_batch_size_then_eighths(size: int, capacity: int) -> None:
    assert BufferPool(10**7, 16000).capacity_for(size) == capacity


def test_charges_end_at_the_limit() -> None:
    pool = BufferPool(1000)
    assert pool.try_charge(600)
    assert not pool.try_charge(401)
    assert pool.try_charge(400)
    assert pool.used == 1000
    assert not pool.try_charge(1)
    pool.uncharge(1)
    assert pool.try_charge(1)


def test_a_charge_that_does_not_come_free_times_out_in_time() -> None:
    pool = BufferPool(100)
    assert pool.try_charge(100)
    started = time.monotonic()
    assert not pool.charge(1, 0.1)
    assert 0.09 < time.monotonic() - started < 2
    assert (pool.used, pool.waiting) == (100, 0)


def test_a_charge_larger_than_the_pool_times_out_too() -> None:
    pool = BufferPool(100)
    assert not pool.charge(101, 0.01)
    assert pool.charge(100, 0.01)


def test_releasing_wakes_who_waits() -> None:
    pool = BufferPool(100)
    assert pool.try_charge(100)
    got: list[bool] = []
    thread = threading.Thread(target=lambda: got.append(pool.charge(60, 10)))
    thread.start()
    until(lambda: pool.waiting == 1)
    pool.uncharge(50)
    assert pool.waiting == 1, "50 are not 60"
    pool.uncharge(50)
    thread.join(10)
    assert got == [True]
    assert pool.used == 60


def test_who_came_first_is_served_first_whatever_it_asks_for() -> None:
    pool = BufferPool(100)
    assert pool.try_charge(100)
    order: list[int] = []
    threads = []
    # While the first has its 90, nothing else fits: `order` is the pool's, not that of waking threads.
    for number, size in enumerate((90, 20, 20, 90)):

        def wait(number: int = number, size: int = size) -> None:
            assert pool.charge(size, 10)
            order.append(number)
            pool.uncharge(size)

        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        until(lambda number=number: pool.waiting == number + 1)  # type: ignore[misc]
    pool.uncharge(50)
    assert order == [], "the small ones may not overtake the large one"
    assert not pool.try_charge(1), "neither may one who does not wait"
    pool.uncharge(50)
    for thread in threads:
        thread.join(10)
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2, 3]
    assert pool.used == 0


def test_who_gives_up_lets_those_behind_pass() -> None:
    pool = BufferPool(100)
    assert pool.try_charge(60)
    got: list[bool] = []
    first = threading.Thread(target=lambda: got.append(pool.charge(100, 0.2)))
    first.start()
    until(lambda: pool.waiting == 1)
    second = threading.Thread(target=lambda: got.append(pool.charge(40, 10)))
    second.start()
    first.join(10)
    second.join(10)
    assert sorted(got) == [False, True]
    assert pool.used == 100


def test_idle_buffers_are_kept_for_reuse_within_the_limit() -> None:
    pool = BufferPool(10_000, 1000)
    pool.cycle(1000)
    assert pool.pooled == 1000
    pool.cycle(1000, times=100)
    assert pool.pooled == 1000, "one buffer went round"
    pool.cycle(512)
    assert pool.pooled == 1512
    pool.cycle(777)
    assert pool.pooled == 1512, "odd sizes are not kept"
    assert pool.used == 0


def test_buffers_larger_than_a_batch_are_kept_as_well() -> None:
    pool = BufferPool(10**6, 16000)
    for size in (16_001, 30_000, 100_000, 200_000):
        capacity = pool.capacity_for(size)
        assert size <= capacity <= size * 9 // 8 + 1
        before = pool.pooled
        pool.cycle(capacity, times=3)
        assert pool.pooled == before + capacity
    pool.cycle(50_001)
    assert pool.pooled == before + capacity, "such a size is not asked for"


def test_a_charge_takes_no_more_idle_buffers_than_it_needs() -> None:
    pool = BufferPool(100_000, 10_000)
    pool.cycle(2048)
    pool.cycle(10_000)
    pool.cycle(20_480)
    assert pool.pooled == 32_528
    assert pool.try_charge(80_000)
    assert pool.pooled == 12_048, "the largest goes first"
    assert pool.try_charge(10_000)
    assert pool.pooled == 2048
    assert pool.try_charge(10_000)
    assert pool.pooled == 0


def test_idle_buffers_make_room_for_charges() -> None:
    pool = BufferPool(10_000, 4000)
    pool.cycle(4000)
    assert pool.pooled == 4000
    assert pool.try_charge(9000)
    assert pool.pooled + pool.used <= 10_000


def test_many_threads_never_exceed_the_limit_and_all_get_their_turn() -> None:
    pool = BufferPool(1000)
    most = 0
    done: list[int] = []

    def run(number: int) -> None:
        nonlocal most
        for i in range(200):
            size = (number * 37 + i * 11) % 500 + 1
            assert pool.charge(size, 20)
            most = max(most, pool.used)
            pool.uncharge(size)
        done.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(done) == list(range(8))
    assert most <= 1000
    assert (pool.used, pool.waiting) == (0, 0)
