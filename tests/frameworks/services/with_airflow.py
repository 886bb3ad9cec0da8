"""airflow dags test invoices"""

import datetime
import json
import os
from pathlib import Path

import kprod.compat

kprod.compat.install("confluent_kafka")

from airflow.providers.apache.kafka.operators.produce import ProduceToTopicOperator
from airflow.sdk import DAG

os.environ["AIRFLOW_CONN_KAFKA_DEFAULT"] = json.dumps(
    {
        "conn_type": "kafka",
        "extra": {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "linger.ms": 5},
    }
)


def invoices():
    for line in Path(os.environ["ORDERS_FILE"]).read_text(encoding="utf-8").splitlines():
        order = json.loads(line)
        total = {"customer": order["customer"], "total": order["number"] * 2}
        yield order["customer"], json.dumps(total)


with DAG("invoices", schedule=None, start_date=datetime.datetime(2026, 1, 1)):
    ProduceToTopicOperator(
        task_id="produce",
        topic=os.environ["INVOICES"],
        producer_function=invoices,
        kafka_config_id="kafka_default",
        synchronous=False,
    )
