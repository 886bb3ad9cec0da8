"""faust -A with_faust worker --without-web"""

import os

import kprod.compat

kprod.compat.install("aiokafka")

import faust

app = faust.App(
    "faust",
    broker=f"kafka://{os.environ['KAFKA_BOOTSTRAP_SERVERS']}",
    processing_guarantee="exactly_once",
    topic_partitions=3,
)


class Order(faust.Record, serializer="json"):
    customer: str
    number: int


class Invoice(faust.Record, serializer="json"):
    customer: str
    total: int


orders = app.topic(os.environ["ORDERS"], value_type=Order)
invoices = app.topic(os.environ["INVOICES"], value_type=Invoice)


@app.agent(orders)
async def invoice(stream):
    async for order in stream:
        await invoices.send(key=order.customer, value=Invoice(order.customer, order.number * 2))
