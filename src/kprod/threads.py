"""Threads, locks and system calls that are the operating system's, also where gevent has replaced them.

``gevent.monkey.patch_all()`` makes greenlets of threads. kprod's threads wait in the core, where no greenlet
can be switched: they have to be real, and so do the locks that they share with the application's greenlets.
Without gevent, what is made here is what :mod:`threading` makes.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, cast

logger = logging.getLogger("kprod.engine")


class ThreadLike(Protocol):
    """What is used of a thread."""

    name: str

    @property
    def ident(self) -> int | None:
        """What :func:`get_ident` returns in it; None: it was not started."""

    def start(self) -> None:
        """Begin."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, in s."""


def original(module: str, name: str) -> Any:
    """A thing of the standard library as it was before gevent replaced it, if it did.

    Args:
        module: for example ``"socket"``.
        name: of something in it.
    """
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        return monkey.get_original(module, name)
    return getattr(sys.modules[module], name)


def replaced() -> bool:
    """Whether gevent has replaced threads by greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def thread(name: str, target: Callable[..., object], *args: object) -> ThreadLike:
    """A thread of the operating system, which does not keep the interpreter from ending.

    Args:
        name: of the thread.
        target: its function.
        *args: the arguments of that.
    """
    if replaced():
        return _NativeThread(name, target, args)
    return threading.Thread(target=target, name=name, args=args, daemon=True)


def get_ident() -> int:
    """The number of the thread that runs, whichever of its greenlets does."""
    ident: int = original("threading", "get_ident")()
    return ident


def lock() -> Any:
    """A lock of the operating system. No greenlet may be switched while it is held."""
    return original("_thread", "allocate_lock")()


def condition() -> threading.Condition:
    """A condition of threads of the operating system. The same holds for it."""
    return cast(threading.Condition, _NativeCondition()) if replaced() else threading.Condition()


class _NativeThread:
    """A daemon thread, past gevent."""

    def __init__(self, name: str, target: Callable[..., object], args: tuple[object, ...]) -> None:
        self.name = name
        self.ident: int | None = None
        self._target = target
        self._args = args
        self._ended = lock()

    def start(self) -> None:
        self._ended.acquire()
        original("_thread", "start_new_thread")(self._run, ())

    def _run(self) -> None:
        self.ident = get_ident()
        try:
            self._target(*self._args)
        except BaseException:
            logger.exception("unexpected error in the thread %s", self.name)
        finally:
            _end_hub()
            self._ended.release()

    def join(self, timeout: float | None = None) -> None:
        if self._ended.acquire(timeout=-1 if timeout is None else timeout):
            self._ended.release()


def _end_hub() -> None:
    """End the hub that the application's code, or the standard library, may have made in a thread of ours."""
    hub = sys.modules["gevent._hub_local"].get_hub_if_exists()
    if hub is not None:
        hub.destroy(True)


class _NativeCondition:
    """A condition with a reentrant lock, past gevent."""

    def __init__(self) -> None:
        self._lock = original("_thread", "RLock")()
        self._waiting: deque[Any] = deque()

    def __enter__(self) -> bool:
        return bool(self._lock.__enter__())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, traceback)

    def wait(self, timeout: float | None = None) -> bool:
        waiter = lock()
        waiter.acquire()
        self._waiting.append(waiter)
        held = self._lock._release_save()
        notified = False
        try:
            notified = bool(waiter.acquire(timeout=-1 if timeout is None else max(timeout, 0)))
        finally:
            self._lock._acquire_restore(held)
            if not notified and waiter in self._waiting:
                self._waiting.remove(waiter)
        return notified

    def notify_all(self) -> None:
        while self._waiting:
            self._waiting.popleft().release()
