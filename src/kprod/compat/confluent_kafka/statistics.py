"""What ``stats_cb`` gets: librdkafka's statistics, as JSON, as far as they make sense for kprod."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kprod.compat.confluent_kafka.producer import Producer


def as_json(owner: Producer) -> str:
    """The statistics of a producer, with the names of librdkafka's STATISTICS.md."""
    producer = owner._producer
    engine = None if producer is None else producer._engine_started
    counters: dict[str, Any] = {} if engine is None else engine.counters()
    loop, memory = counters.get("loop", {}), counters.get("memory", {})
    brokers = {str(number): _broker(number, row) for number, row in counters.get("brokers", {}).items()}
    conf = owner._conf
    client_id = conf.options["client_id"]
    return json.dumps(
        {
            "name": f"{client_id}#producer-{id(owner)}",
            "client_id": client_id,
            "type": "producer",
            "ts": time.monotonic_ns() // 1000,
            "time": int(time.time()),
            "replyq": 0,
            "msg_cnt": len(owner),
            "msg_size": memory.get("used", 0),
            "msg_max": conf.max_messages,
            "msg_size_max": memory.get("total", 0),
            "tx": sum(row["tx"] for row in brokers.values()),
            "tx_bytes": sum(row["txbytes"] for row in brokers.values()),
            "rx": sum(row["rx"] for row in brokers.values()),
            "rx_bytes": sum(row["rxbytes"] for row in brokers.values()),
            "txmsgs": loop.get("records_acked", 0),
            "txmsg_bytes": loop.get("raw_bytes", 0),
            "metadata_cache_cnt": len(counters.get("topics", {})),
            "brokers": brokers,
            "topics": {name: _topic(name, row) for name, row in counters.get("topics", {}).items()},
        }
    )


def _broker(number: int, row: dict[str, Any]) -> dict[str, Any]:
    count = row["latency_count"]
    return {
        "name": f"node-{number}" if number >= 0 else "bootstrap",
        "nodeid": number,
        "source": "learned" if number >= 0 else "configured",
        "state": "UP" if row["connected"] else "DOWN",
        "waitresp_cnt": row["in_flight"],
        "tx": row["requests_sent"],
        "txbytes": row["bytes_out"],
        "rx": row["responses_received"],
        "rxbytes": row["bytes_in"],
        "rtt": {
            "cnt": count,
            "sum": row["latency_sum_us"],
            "avg": row["latency_sum_us"] // count if count else 0,
            "max": row["latency_max_us"],
        },
    }


def _topic(name: str, row: dict[str, Any]) -> dict[str, Any]:
    batches = row["batches_sent"]
    return {
        "topic": name,
        "batchsize": {
            "cnt": batches,
            "sum": row["bytes_sent"],
            "avg": row["bytes_sent"] // batches if batches else 0,
        },
        "batchcnt": {
            "cnt": batches,
            "sum": row["records_acked"],
            "avg": row["records_acked"] // batches if batches else 0,
        },
    }
