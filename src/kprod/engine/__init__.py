"""The engine: the threads of a producer, and the only place where they meet sockets and state machines.

Four threads, all daemons named after the client id:

* *io* runs the network loop of the core without the GIL;
* *control* (:mod:`kprod.engine.control`) does what is rare: host names, connecting, API versions, metadata,
  producer ids, transactions, pushes of metrics. It learns of everything through the loop's events and asks
  the loop for everything through its methods;
* *delivery* runs callbacks;
* *compress*, when a codec is configured, compresses batches that linger.ms closed.

What application threads and the control thread both see is in :mod:`kprod.engine.shared`, which says who
writes what. Imports point downwards::

    engine                        threads, the application's calls, close, exit, fork
      control                     events and deadlines
        transactions              drives the state machine of kprod.transactions
        telemetry                 drives the state machine of kprod.telemetry
        producer_id               of a plain idempotent producer
        metadata                  brokers, topics, leaders
          connections             set-up, control requests and their answers
            nodes                 which there are, which are wanted
      topics                      application threads waiting for metadata
      description, committed      application threads asking about the cluster, and for committed offsets
      shared, sockets, offsets, wake
"""

import kprod.loggers  # silent from here on  # noqa: F401
from kprod.engine.engine import Engine

__all__ = ["Engine"]
