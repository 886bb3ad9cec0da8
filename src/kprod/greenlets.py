"""Waiting under gevent: a call that blocks would hold up all greenlets of the thread.

What waits in the core, or for one of kprod's threads, asks :func:`running_hub` first. Where a hub runs, the
wait is left to a thread of the operating system, and the greenlet sleeps in the hub until that one is done.
The core is given these functions, see :func:`kprod._core.future.set_greenlets`.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

from kprod import threads

T = TypeVar("T")
Method = TypeVar("Method", bound=Callable[..., Any])


def running_hub() -> Any:
    """gevent's hub, if one runs in this thread and the caller may wait in it; else None."""
    local = sys.modules.get("gevent._hub_local")
    if local is None:
        return None
    hub = local.get_hub_if_exists()
    # The hub's own callbacks cannot wait for it.
    return None if hub is None or hub is sys.modules["gevent"].getcurrent() else hub


def waiter(hub: Any) -> tuple[Callable[..., None], Callable[[float | None], object]]:
    """Two functions: one for any thread to say that it is time, one for the greenlet to wait for that, once.

    The second takes a limit in seconds, or None. Each wait has a watcher of its own, of which all but
    ``send()`` belongs to the hub's thread: ``run_callback_threadsafe()`` counts in the loop without a lock,
    and a hub that has lost a count believes that nothing is left to wait for (LoopExit).
    """
    event = importlib.import_module("gevent.event").Event()
    watcher = hub.loop.async_()
    said = False

    def ready(*_: object) -> None:
        nonlocal said
        said = True
        try:
            watcher.send()
        except Exception:
            # Closed, or the hub was destroyed: nobody waits any more.
            pass

    def wait(timeout: float | None) -> object:
        try:
            # What was sent before the start is forgotten by the watcher.
            watcher.start(event.set)
            return said or event.wait(timeout)
        finally:
            watcher.stop()
            watcher.close()

    return ready, wait


def call_in_thread(hub: Any, function: Callable[..., T], *args: object) -> T:
    """Call a function that blocks in a thread made for it, while the other greenlets go on.

    Not in gevent's thread pool: its few threads are the application's. What ends the wait of the greenlet
    (``gevent.Timeout``, ``kill()``) does not stop the function; its result is dropped then.
    """
    ready, wait = waiter(hub)
    outcome: list[tuple[T | None, BaseException | None]] = []

    def run() -> None:
        try:
            outcome.append((function(*args), None))
        except BaseException as error:
            outcome.append((None, error))
        finally:
            ready()

    threads.thread("kprod-wait", run).start()
    wait(None)
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[return-value]


def pause(seconds: float) -> None:
    """Let other greenlets run for a while."""
    sys.modules["gevent"].sleep(seconds)


def cooperative(method: Method) -> Method:
    """Decorates a method that may block: a greenlet that calls it holds up no other."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        hub = running_hub()
        if hub is None or self.accumulator.in_delivery_thread():
            return method(self, *args, **kwargs)
        return call_in_thread(hub, functools.partial(method, self, *args, **kwargs))

    return cast(Method, call)
