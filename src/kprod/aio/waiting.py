"""How coroutines wait for what only threads can wait for, and for each other."""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(name: str, function: Callable[..., T], *args: object) -> T:
    """Call a function that blocks in a thread of its own, and wait for it without holding up the loop.

    Not in the loop's executor: its few threads are the application's, and the interpreter waits for them at
    its end.

    Cancelling the await does not stop the function; its result is dropped then.

    Args:
        name: of the thread.
        function: what to call.
        *args: its arguments.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if outcome.cancelled():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = function(*args)
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            # The loop was closed meanwhile: nobody waits any more.
            pass

    threading.Thread(target=run, name=name, daemon=True).start()
    return await outcome


class Queue:
    """Coroutines of one loop that take turns, first come first served, each until a deadline of its own."""

    def __init__(self) -> None:
        self._busy = False
        self._waiting: collections.deque[asyncio.Future[bool]] = collections.deque()

    @property
    def busy(self) -> bool:
        """Whether somebody has the turn."""
        return self._busy

    async def enter(self, deadline: float) -> bool:
        """Wait for the turn until ``deadline``, a time of the loop. False: it did not come.

        Every ``True`` needs one :meth:`leave`.
        """
        if not self._busy:
            self._busy = True
            return True
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(turn)
        timer = loop.call_at(deadline, _expire, turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.leave()
            raise
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Give the turn to the next one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self._busy = False


def _expire(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(False)


class Shared:
    """Calls in threads that several coroutines of one loop want at the same time, made once."""

    def __init__(self) -> None:
        self._running: dict[Any, asyncio.Task[Any]] = {}

    def get(self, key: object) -> asyncio.Task[Any] | None:
        """The call that is under way for ``key``."""
        return self._running.get(key)

    def start(self, key: object, name: str, function: Callable[..., T], *args: object) -> asyncio.Task[T]:
        """Begin a call; it counts as under way until it ends."""
        task: asyncio.Task[T] = asyncio.ensure_future(in_thread(name, function, *args))
        self._running[key] = task

        def ended(done: asyncio.Task[T]) -> None:
            del self._running[key]
            if not done.cancelled():
                # Whoever asked may have gone: then nobody is told of its error.
                done.exception()

        task.add_done_callback(ended)
        return task
