"""python -m bytewax.run with_bytewax:flow"""

import json
import os

import kprod.compat

kprod.compat.install("confluent_kafka")

from bytewax import operators
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kafka
from bytewax.dataflow import Dataflow

BROKERS = os.environ["KAFKA_BOOTSTRAP_SERVERS"].split(",")


def invoice(message):
    order = json.loads(message.value)
    total = {"customer": order["customer"], "total": order["number"] * 2}
    return KafkaSinkMessage(message.key, json.dumps(total).encode())


flow = Dataflow("invoices")
orders = kafka.input("orders", flow, brokers=BROKERS, topics=[os.environ["ORDERS"]], tail=False)
invoices = operators.map("invoice", orders.oks, invoice)
kafka.output("invoices", invoices, brokers=BROKERS, topic=os.environ["INVOICES"])
