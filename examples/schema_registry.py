"""Send Avro with a Schema Registry: the schema is registered with the first record, the id goes with each.

Needs `pip install 'kprod[registry,avro]'`.
"""

from __future__ import annotations

import json
import os

from kprod import KafkaProducer
from kprod.schema_registry import AvroSerializer, SchemaRegistryClient, SerializationError

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
REGISTRY = os.environ.get("SCHEMA_REGISTRY_URL", "http://localhost:8081")

ORDER = json.dumps(
    {
        "type": "record",
        "name": "Order",
        "namespace": "shop",
        "fields": [{"name": "id", "type": "long"}, {"name": "total", "type": "double"}],
    }
)

with SchemaRegistryClient(REGISTRY) as registry:
    with KafkaProducer(
        bootstrap_servers=BOOTSTRAP, value_serializer=AvroSerializer(registry, ORDER)
    ) as producer:
        for number in range(100):
            producer.send("orders-avro", {"id": number, "total": 9.5 + number})
        try:
            producer.send("orders-avro", {"id": "seventeen", "total": 1.0})
        except SerializationError as error:
            print("not sent:", error)
        producer.flush()
print("100 orders are written")
