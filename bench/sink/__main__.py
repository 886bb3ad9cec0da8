"""``python -m bench.sink [BROKERS [PARTITIONS]]``: a sink to point any client at."""

from __future__ import annotations

import sys

from bench.sink import Sink

if __name__ == "__main__":
    with Sink(*map(int, sys.argv[1:3])) as sink:
        print(f"{sink.bootstrap_servers} (Enter ends it)", flush=True)
        sys.stdin.readline()
        print(sink.stats())
