"""What a producer that has nothing to send costs, in a process of its own: ``python -m bench.idle``.

Reads a JSON line (client, bootstrap, topic, seconds), prints a JSON line: CPU time in us and voluntary
context switches (each is a thread that woke up and went back to sleep), both per second.
"""

from __future__ import annotations

import json
import resource
import sys
from time import sleep

from bench.clients import make_client
from bench.workload import Workload

_SETTLE_S = 2.0


def measure(client: str, bootstrap: str, topic: str, seconds: float) -> dict[str, float]:
    """Send one block, let what follows settle, and watch the process while its main thread sleeps."""
    workload = Workload(records=1, warmup=1)
    producer = make_client(client, bootstrap, topic, workload)
    producer.send(workload.blocks(0, 1))
    producer.drain()
    sleep(_SETTLE_S)
    before = resource.getrusage(resource.RUSAGE_SELF)
    sleep(seconds)
    after = resource.getrusage(resource.RUSAGE_SELF)
    producer.close()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_us": cpu / seconds * 1e6, "wakeups": (after.ru_nvcsw - before.ru_nvcsw) / seconds}


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.stdin.readline()))))
