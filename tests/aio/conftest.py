"""Fixtures of the tests of kprod.aio: event loops of both kinds, a mock cluster."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from kprod.aio import AsyncKafkaProducer
from kprod.testing import MockCluster
from tests.mock.conftest import cluster, make_cluster

__all__ = ["cluster", "make_cluster"]

Run = Callable[[Coroutine[Any, Any, Any]], Any]

LOOPS = ["asyncio"] if sys.platform == "win32" else ["asyncio", "uvloop"]


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """An event loop of asyncio or uvloop."""
    if kind == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        return loop
    return asyncio.new_event_loop()


def run_in(kind: str, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """``asyncio.run()`` with a loop of one kind; what hangs ends after 30 s."""
    loop = new_loop(kind)
    try:
        return loop.run_until_complete(asyncio.wait_for(coroutine, 30))
    finally:
        loop.run_until_complete(_end())
        loop.close()


async def _end() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine to its end, in a loop of asyncio and in one of uvloop."""
    return lambda coroutine: run_in(request.param, coroutine)


def options(on: MockCluster, **more: Any) -> dict[str, Any]:
    """Options of a producer for a mock cluster, with short pauses."""
    return {
        "bootstrap_servers": on.bootstrap_servers,
        "retry_backoff_ms": 5,
        "retry_backoff_max_ms": 20,
        "reconnect_backoff_ms": 5,
        "reconnect_backoff_max_ms": 20,
        "linger_ms": 1,
        **more,
    }


def producer_for(on: MockCluster, **more: Any) -> AsyncKafkaProducer:
    """A producer that is not started yet."""
    return AsyncKafkaProducer(options(on, **more))


class Ticker:
    """Counts the turns of the loop while something else goes on: a blocked loop does not tick."""

    def __init__(self) -> None:
        self.ticks = 0

    async def during(self, awaitable: Awaitable[Any]) -> Any:
        """Await something, counting turns."""

        async def tick() -> None:
            while True:
                self.ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.ensure_future(tick())
        try:
            return await awaitable
        finally:
            ticking.cancel()


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Let the loop run until something is true."""
    for _ in range(15_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError(f"not within 15 s: {what}")
