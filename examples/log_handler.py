"""Log to a Kafka topic as JSON; the application never waits for Kafka."""

from __future__ import annotations

import logging
import os

from kprod.logging import JsonFormatter, KafkaHandler

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")

handler = KafkaHandler({"bootstrap_servers": BOOTSTRAP}, "logs", formatter=JsonFormatter({"service": "shop"}))
log = logging.getLogger("shop")
log.setLevel(logging.INFO)
log.addHandler(handler)

for number in range(100):
    log.info("order %d is paid", number, extra={"order": number})

handler.close()
print(f"{handler.delivered} log records are written, {handler.dropped} were dropped, {handler.failed} failed")
