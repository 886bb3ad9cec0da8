"""No process outlives the test run that started it, even one that is killed.

A child of its own reads the process groups to watch over from a pipe. When the pipe ends, because the test
run ended in whatever way, it kills the groups that are still registered. (Linux's PR_SET_PDEATHSIG would do
so when the starting *thread* ends, which is wrong for brokers restarted from a test's thread.)
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading

_lock = threading.Lock()  # guards _watcher, _ended and the writes to the pipe
_watcher: subprocess.Popen[bytes] | None = None
_ended = False


def watch(process_group: int) -> None:
    """Have ``process_group`` killed when this process ends."""
    _say(f"+{process_group}\n")


def unwatch(process_group: int) -> None:
    """Forget ``process_group``, whose leader was waited for: its number may soon be another's."""
    _say(f"-{process_group}\n")


def _say(line: str) -> None:
    global _watcher
    with _lock:
        if _ended:
            return
        if _watcher is None:
            atexit.register(_end)
            # A session of its own: a Ctrl-C in the terminal must not reach it before it has done its work.
            _watcher = subprocess.Popen(
                [sys.executable, "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        assert _watcher.stdin is not None
        _watcher.stdin.write(line.encode())
        _watcher.stdin.flush()


def _end() -> None:
    global _ended
    with _lock:
        _ended = True
        assert _watcher is not None and _watcher.stdin is not None
        _watcher.stdin.close()
        _watcher.wait()


def _run() -> None:
    watched: set[int] = set()
    for line in sys.stdin:
        (watched.add if line[0] == "+" else watched.discard)(int(line[1:]))
    for process_group in watched:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process_group, signal.SIGKILL)


if __name__ == "__main__":
    _run()
