"""celery -A with_celery worker --pool solo"""

import functools
import json
import os
from pathlib import Path

import kprod.compat

kprod.compat.install("confluent_kafka")

from celery import Celery

from kprod import KafkaProducer

app = Celery("with_celery", broker=f"confluentkafka://{os.environ['KAFKA_BOOTSTRAP_SERVERS']}")
app.conf.task_default_queue = os.environ["ORDERS"]
app.conf.task_ignore_result = True
app.conf.broker_transport_options = {"wait_time_seconds": 1}
app.conf.worker_enable_remote_control = False


@functools.cache
def producer():
    return KafkaProducer(bootstrap_servers=os.environ["KAFKA_BOOTSTRAP_SERVERS"])


@app.task
def invoice(customer, number):
    total = json.dumps({"customer": customer, "total": number * 2}).encode()
    producer().send(os.environ["INVOICES"], total, key=customer.encode()).get(timeout=30)


if __name__ == "__main__":  # another process, which gives the worker its work
    for line in Path(os.environ["ORDERS_FILE"]).read_text(encoding="utf-8").splitlines():
        invoice.delay(**json.loads(line))
