"""What runs in the process of ``MockCluster(process=True)``: calls come in on stdin, results go out on
stdout.

It ends when its input ends, so it never outlives the process that started it.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import Future
from functools import partial
from typing import IO, Any

from kprod.testing.hosts import ThreadHost, receive, send


def serve(calls: IO[bytes], results: IO[bytes]) -> None:
    """Answer calls until there are no more.

    Args:
        calls: messages (number, method, arguments); the first one is ``start``.
        results: receives (number, result, exception).
    """
    host: ThreadHost | None = None
    lock = threading.Lock()

    def reply(number: int, result: Any, error: BaseException | None) -> None:
        with lock:
            send(results, (number, result, error))

    def relay(number: int, future: Future[Any]) -> None:
        error = future.exception()
        reply(number, None if error is not None else future.result(), error)

    try:
        while True:
            message = receive(calls)
            if message is None:
                break
            number, method, args = message
            try:
                if method == "start":
                    host = ThreadHost(*args)
                    reply(number, None, None)
                else:
                    assert host is not None
                    host.submit(method, *args).add_done_callback(partial(relay, number))
            except Exception as exc:
                reply(number, None, exc)
    finally:
        if host is not None:
            host.close()


if __name__ == "__main__":
    # Nothing else may write to the channel, so stdout becomes stderr.
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with channel:
        serve(sys.stdin.buffer, channel)
