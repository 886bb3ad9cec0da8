"""faststream run with_faststream_confluent:app"""

import os

import kprod.compat

kprod.compat.install("confluent_kafka")

from faststream import FastStream
from faststream.confluent import KafkaBroker
from pydantic import BaseModel

broker = KafkaBroker(os.environ["KAFKA_BOOTSTRAP_SERVERS"], acks="all", enable_idempotence=True)
app = FastStream(broker)
invoices = broker.publisher(os.environ["INVOICES"])


class Order(BaseModel):
    customer: str
    number: int


@broker.subscriber(os.environ["ORDERS"], group_id="faststream-confluent", auto_offset_reset="earliest")
async def invoice(order: Order) -> None:
    await invoices.publish(
        {"customer": order.customer, "total": order.number * 2}, key=order.customer.encode()
    )
