"""Exactly once from one topic to another, whatever is killed on the way.

Reads with confluent-kafka, writes with kprod. The outputs of some inputs, and the offset up to which these
were read, are committed in one transaction: after a crash both are there or neither is, and the next process
goes on from the committed offset. Start as many as there are partitions, each with a transactional id of its
own::

    pip install kprod confluent-kafka
    python exactly_once_pipeline.py localhost:9092 sentences shouts --transactional-id shouter-1
"""

import argparse
import logging
import signal
import threading

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from kprod import KafkaProducer
from kprod.errors import KafkaError

log = logging.getLogger("pipeline")


def transform(value: bytes) -> bytes:
    """What is done to each record."""
    return value.upper()


def next_offsets(messages: list[Message]) -> list[TopicPartition]:
    """Where reading goes on after these, by partition."""
    last = {(message.topic(), message.partition()): message.offset() for message in messages}
    return [TopicPartition(topic, partition, offset + 1) for (topic, partition), offset in last.items()]


def rewind(consumer: Consumer) -> None:
    """Go back to what is committed: what was read since then was not processed."""
    assigned = consumer.assignment()
    if not assigned:  # a rebalance is under way; who gets the partitions begins at what is committed
        return
    for place in consumer.committed(assigned, timeout=60):
        if place.offset < 0:
            place.offset = OFFSET_BEGINNING
        consumer.seek(place)


def run(
    bootstrap_servers: str,
    source: str,
    target: str,
    group: str,
    transactional_id: str,
    stop: threading.Event,
) -> None:
    """Copy and transform until ``stop`` is set.

    Raises:
        KafkaError: the producer has ended, because another one has its transactional id or the outcome of a
            transaction could not be had. Let the process end and be started again: it will find out.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            # Offsets are committed with the transactions, and only there.
            "enable.auto.commit": False,
            # Inputs that were aborted by their producer do not count.
            "isolation.level": "read_committed",
            "session.timeout.ms": 6000,
        }
    )
    with KafkaProducer(bootstrap_servers=bootstrap_servers, transactional_id=transactional_id) as producer:
        # Fences a predecessor that is still running, and ends the transaction it may have left open.
        producer.init_transactions()
        consumer.subscribe([source])
        try:
            while not stop.is_set():
                messages = [m for m in consumer.consume(500, timeout=0.2) if m.error() is None]
                if not messages:
                    continue
                # Outside of the try: this raises when the producer has ended, and so does the process then.
                producer.begin_transaction()
                try:
                    for message in messages:
                        producer.send(target, transform(message.value()), key=message.key())
                    # With the metadata the broker refuses offsets of a consumer that has lost its partitions.
                    producer.send_offsets_to_transaction(
                        next_offsets(messages), consumer.consumer_group_metadata()
                    )
                    producer.commit_transaction()
                except KafkaError as error:
                    log.warning("aborted, will be done again: %s", error)
                    producer.abort_transaction()
                    rewind(consumer)
        finally:
            consumer.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bootstrap_servers")
    parser.add_argument("source", help="topic to read")
    parser.add_argument("target", help="topic to write")
    parser.add_argument("--group", default="exactly-once-pipeline")
    parser.add_argument(
        "--transactional-id", required=True, help="the same at each start of this process; each has its own"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    run(
        arguments.bootstrap_servers,
        arguments.source,
        arguments.target,
        arguments.group,
        arguments.transactional_id,
        stop,
    )


if __name__ == "__main__":
    main()
