"""What the code on a page finds there: names that the page takes for granted, brokers where it expects them.

Functions are named by comments on the pages (see ``tests.docs.blocks``), get a :class:`Place`, and return
names for the block and those behind it on the page.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kprod import KafkaProducer, errors
from kprod.config import ProducerConfig
from kprod.testing import MockCluster
from tests.certificates import CertificateAuthority

Names = dict[str, Any]


@dataclass
class Place:
    """Where the blocks of a page run.

    Attributes:
        cluster: the mock cluster; the addresses of brokers that are written in a block lead there.
        folder: the present directory.
        patch: undone at the end of the page.
        instead: texts to be put in the place of others in the code, beyond the addresses.
        bootstrap: what addresses of brokers become.
    """

    cluster: MockCluster
    folder: Path
    patch: pytest.MonkeyPatch
    bootstrap: str
    instead: dict[str, str] = field(default_factory=dict)
    ended: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def producer(self, **options: Any) -> KafkaProducer:
        """A producer, closed at the end of the page."""
        made = KafkaProducer(bootstrap_servers=self.bootstrap, **options)
        self.ended.callback(made.close, timeout=1)
        return made


Surroundings = Callable[[Place], Names]


def producer(place: Place) -> Names:
    """A producer."""
    return {"producer": place.producer()}


def sent_event(place: Place) -> Names:
    """A producer that has sent a record to ``events``."""
    made = place.producer()
    made.send("events", b"v").get(10)
    return {"producer": made}


def asked_for_metrics(place: Place) -> Names:
    """A producer of a cluster that asks for metrics."""
    cluster = place.ended.enter_context(MockCluster())
    cluster.subscribe_to_metrics()
    made = KafkaProducer(bootstrap_servers=cluster.bootstrap_servers)
    place.ended.callback(made.close, timeout=1)
    return {"producer": made}


def fastapi_app(place: Place) -> Names:
    """An application, and what its module has imported."""
    fastapi = pytest.importorskip("fastapi")
    return {"app": fastapi.FastAPI(), "Response": fastapi.Response, "Any": Any}


def flask_app(place: Place) -> Names:
    """An application."""
    return {"app": pytest.importorskip("flask").Flask("page")}


def transactional_producer(place: Place) -> Names:
    """A producer that may begin a transaction."""
    made = place.producer(transactional_id="of-the-page")
    made.init_transactions()
    return {"producer": made}


def error_names(place: Place) -> Names:
    """All exceptions, as after an import of those that are used."""
    return {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}


def events(place: Place) -> Names:
    """Records to send, and a log."""
    return {"events": [b"one", b"two"], "values": [b"one", b"two"], "log": logging.getLogger("page")}


def columns(place: Place) -> Names:
    """An Arrow array and a data frame."""
    pyarrow = pytest.importorskip("pyarrow")
    frame = pyarrow.table({"payload": ["one", "two"], "user_id": ["7", "8"]})
    return {"arrow_array": pyarrow.array(["one", "two"]), "data_frame": frame}


def parquet_file(place: Place) -> Names:
    """The file events.parquet."""
    import datetime

    import polars

    at = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)
    frame = polars.DataFrame({"payload": ["one", "two"], "user_id": ["7", "8"], "at": [at, at]})
    frame.write_parquet(place.folder / "events.parquet")
    return {}


def orders(place: Place) -> Names:
    """Orders to publish."""
    kinds = [SimpleNamespace(key=b"7", body=b"order", audit=b"audit") for _ in range(3)]
    return {"orders": kinds}


def service(place: Place) -> Names:
    """The code that the page tests."""

    def publish_order(
        producer: KafkaProducer, topic: str | dict[str, int] = "orders", order: Any = None, order_id: int = 7
    ) -> None:
        producer.send(str(topic), json.dumps(order).encode(), key=b"%d" % order_id).get(10)

    def run_my_service(bootstrap_servers: str) -> None:
        with KafkaProducer(bootstrap_servers=bootstrap_servers) as made:
            for number in range(1000):
                made.send("events", b"%d" % number)

    return {"publish_order": publish_order, "run_my_service": run_my_service}


def cluster(place: Place) -> Names:
    """The mock cluster, without anything in it."""
    place.cluster.clear()
    place.ended.callback(place.cluster.clear)
    return {"cluster": place.cluster}


def work(place: Place) -> Names:
    """Batches of records, and the functions of an application that works on them."""
    batches = iter([[b"one", b"two"], [b"three"], []])
    stored: list[str] = []
    database = SimpleNamespace(
        transaction=contextlib.nullcontext,
        store=lambda work, kafka_state: stored.append(kafka_state),
        read_kafka_state=lambda: stored[-1],
    )
    return {"next_batch": lambda: next(batches), "put_back": list, "finish": list, "database": database}


def consumer(place: Place) -> Names:
    """A confluent-kafka consumer with a group, and messages that it has read."""
    from confluent_kafka import Consumer, TopicPartition

    with KafkaProducer(bootstrap_servers=place.bootstrap) as made:
        made.send("in", b"one").get(10)
    options = {"bootstrap.servers": place.bootstrap, "group.id": "page", "auto.offset.reset": "earliest"}
    reading = Consumer({**options, "enable.auto.commit": False})
    place.ended.callback(reading.close)
    reading.subscribe(["in"])
    message = None
    for _ in range(60):
        message = reading.poll(0.5)
        if message is not None:
            break
    assert message is not None and message.error() is None
    names = {"consumer": reading, "batch": [message], "last_of_each_partition": [message]}
    return {**names, "transform": bytes.upper, "TopicPartition": TopicPartition}


def client(place: Place) -> Names:
    """The arguments of a call, under the names that the pages on moving use."""
    place.cluster.create_topic("events", partitions=4)
    return {
        "servers": place.bootstrap,
        "key": b"key",
        "value": b"value",
        "on_delivery": lambda error, message: None,
    }


def tls(place: Place) -> Names:
    """Brokers with TLS, certificates where the page expects them."""
    authority = CertificateAuthority(place.folder)
    broker, own = authority.issue("broker"), authority.issue("client")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(broker.certificate, broker.key)
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    secure = place.ended.enter_context(MockCluster(ssl_context=context))
    place.bootstrap = secure.bootstrap_servers
    place.instead = {
        "/etc/kafka/ca.pem": str(authority.file),
        "/etc/kafka/client.pem": str(own.certificate),
        "/etc/kafka/client.key": str(own.key),
    }
    return {}


def sasl(place: Place) -> Names:
    """Brokers with TLS that know alice; their certificate is one that the system trusts."""
    authority = CertificateAuthority(place.folder)
    broker = authority.issue("broker")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(broker.certificate, broker.key)
    place.patch.setenv("SSL_CERT_FILE", str(authority.file))
    secure = place.ended.enter_context(MockCluster(ssl_context=context, sasl_users={"alice": "wonderland"}))
    place.bootstrap = secure.bootstrap_servers
    password = place.folder / "password"
    password.write_text("wonderland\n")
    place.instead = {"/run/secrets/kafka": str(password)}
    return {}


def options_only(place: Place) -> Names:
    """``KafkaProducer`` checks its options and does nothing else: there is nobody to connect to."""

    def check(options: Any = None, /, **more: object) -> ProducerConfig:
        return ProducerConfig.from_options(options, more)

    return {"KafkaProducer": check}


def registry(place: Place) -> Names:
    """A Schema Registry, and a schema."""
    from tests.schema_registry.server import RegistryServer

    server = RegistryServer()
    place.ended.callback(server.close)
    place.instead["https://registry:8081"] = server.url
    schema = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}
    return {"schema_text": json.dumps(schema)}


def root_logger(place: Place) -> Names:
    """Handlers that the page adds to the root logger are taken away again."""
    before = list(logging.getLogger().handlers)

    def restore() -> None:
        for handler in set(logging.getLogger().handlers) - set(before):
            logging.getLogger().removeHandler(handler)
            handler.close()

    place.ended.callback(restore)
    return {}


def imported(place: Place) -> Names:
    """Modules of the standard library, KafkaProducer and serializers, as after imports."""
    from kprod.serializers import JsonSerializer

    return {
        "json": json,
        "asyncio": asyncio,
        "KafkaProducer": KafkaProducer,
        "JsonSerializer": JsonSerializer,
    }


def names_for(place: Place, wanted: tuple[str, ...]) -> Iterator[Names]:
    """What the functions of these names make.

    Raises:
        LookupError: there is no function of such a name.
    """
    for name in wanted:
        made: Surroundings | None = globals().get(name)
        if made is None or getattr(made, "__module__", None) != __name__:
            raise LookupError(f"tests/docs/surroundings.py has no function {name!r}")
        yield made(place)
