"""Where a mock cluster runs: in a thread, or in a process of its own."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import pickle
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import IO, Any, Protocol

from kprod.testing.broker.server import BrokerServer, ClusterClosed, bind


class Host(Protocol):
    """Runs a :class:`BrokerServer` and calls its methods."""

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the server and return what it returns or raise what it raises."""

    def close(self) -> None:
        """Stop the server. May be called again."""


class ThreadHost:
    """Runs the server in an event loop in a thread of this process.

    Args:
        options: arguments of :class:`BrokerServer`, with `brokers` and `host` to make its sockets from.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        options = dict(options)
        count, host = options.pop("brokers"), options.pop("host")
        sockets = []
        try:
            for _ in range(count):
                sockets.append(bind(host, 0))
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        # The selector loop on Windows too: sockets are added to it as readers.
        self._loop = asyncio.SelectorEventLoop()
        self._server = BrokerServer(sockets, host, self._loop, **options)
        self._thread = threading.Thread(target=self._run, name="kprod-mock-cluster", daemon=True)
        self._lock = threading.Lock()
        self._closed = False
        self._thread.start()
        self.call("start")

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def submit(self, method: str, *args: Any) -> Future[Any]:
        """Call a method of the server in its thread.

        Raises:
            ClusterClosed: it was closed.
        """
        with self._lock:
            if self._closed:
                raise ClusterClosed
            return asyncio.run_coroutine_threadsafe(self._invoke(method, args), self._loop)

    async def _invoke(self, method: str, args: tuple[Any, ...]) -> Any:
        result = getattr(self._server, method)(*args)
        return await result if inspect.isawaitable(result) else result

    async def _shut_down(self) -> None:
        await self._server.close()
        # Calls under way get their answer before the loop stops, or their threads would wait for ever.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others)

    def call(self, method: str, *args: Any) -> Any:
        """See :class:`Host`."""
        return self.submit(method, *args).result()

    def close(self) -> None:
        """See :class:`Host`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        asyncio.run_coroutine_threadsafe(self._shut_down(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


class ProcessHost:
    """Runs the server in a process of its own and talks to it through its standard input and output.

    Args:
        options: as for :class:`ThreadHost`.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        # stderr stays this process's: what goes wrong over there is seen here.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kprod.testing.cluster_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to_child: IO[bytes] = self._process.stdin
        self._from_child: IO[bytes] = self._process.stdout
        self._lock = threading.Lock()
        self._pending: dict[int, Future[Any]] = {}
        self._numbers = itertools.count()
        self._closed = False
        self._reader = threading.Thread(target=self._read, name="kprod-mock-cluster-process", daemon=True)
        self._reader.start()
        try:
            self._submit("start", (options,)).result()
        except BaseException:
            self.close()
            raise

    def _submit(self, method: str, args: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise ClusterClosed
            number = next(self._numbers)
            self._pending[number] = future
            send(self._to_child, (number, method, args))
        return future

    def _read(self) -> None:
        while True:
            message = receive(self._from_child)
            if message is None:
                break
            number, result, error = message
            with self._lock:
                future = self._pending.pop(number)
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
        with self._lock:
            pending, self._pending = self._pending, {}
        for future in pending.values():
            future.set_exception(ClusterClosed())

    def call(self, method: str, *args: Any) -> Any:
        """See :class:`Host`."""
        return self._submit(method, args).result()

    def close(self) -> None:
        """See :class:`Host`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            # The process ends when its input does.
            self._to_child.close()
        self._process.wait()
        self._reader.join()
        self._from_child.close()


def send(stream: IO[bytes], message: Any) -> None:
    """Write one message, with its length in front."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    stream.write(len(data).to_bytes(8, "big") + data)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; ``None`` at the end."""
    size = stream.read(8)
    if len(size) < 8:
        return None
    data = stream.read(int.from_bytes(size, "big"))
    return pickle.loads(data)
