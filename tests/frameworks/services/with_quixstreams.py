"""python with_quixstreams.py"""

import os

import kprod.compat

kprod.compat.install("confluent_kafka")

from quixstreams import Application

app = Application(
    broker_address=os.environ["KAFKA_BOOTSTRAP_SERVERS"],
    consumer_group="quixstreams",
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    commit_interval=0.5,
)
orders = app.topic(os.environ["ORDERS"], value_deserializer="json")
invoices = app.topic(os.environ["INVOICES"], value_serializer="json")

frame = app.dataframe(orders)
frame = frame.apply(lambda order: {"customer": order["customer"], "total": order["number"] * 2})
frame.to_topic(invoices)

if __name__ == "__main__":
    app.run()
