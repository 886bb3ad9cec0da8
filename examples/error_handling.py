"""What can go wrong, where it shows, and what to do about it.

* send() raises at once what is the caller's mistake (wrong types, a record that is too large, no such
  partition) and what keeps it from taking any record (closed, buffer full, topic unknown). Nothing is sent
  then.
* Everything later is on the record's future and callback, once. The error says where, whether trying again
  can help (``retriable``), and whether the record may have been written all the same (``persisted``: no,
  possibly or yes).

The producer has tried again itself, in order and without duplicates, for delivery_timeout_ms before it
gives up.
"""

from __future__ import annotations

import os
import time

from kprod import KafkaError, KafkaProducer
from kprod.errors import (
    BufferExhaustedError,
    InvalidTimestampError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
)

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
TOPIC = "payments"


def mistakes(producer: KafkaProducer) -> None:
    """send() tells these at once."""
    try:
        producer.send(TOPIC, "text")
    except TypeError as error:
        print("wrong type:", error)
    try:
        producer.send(TOPIC, b"x" * 2_000_000)
    except MessageSizeTooLargeError as error:
        print("too large:", error)
    try:
        producer.send(TOPIC, b"x", partition=999)
    except ValueError as error:
        print("no such partition:", error)


def what_to_do(error: KafkaError) -> str:
    """What an application does with a record that failed."""
    if error.persisted == "yes":
        return "nothing: it is written"
    if error.persisted == "possibly":
        return "look whether it is there before sending it again"
    if error.retriable:
        return "send it again later"
    return "keep it for a human"


def deliveries(producer: KafkaProducer) -> None:
    """The broker decides about these."""
    in_ten_years = int((time.time() + 10 * 365 * 86_400) * 1000)
    # Kafka refuses timestamps that lie more than an hour ahead (message.timestamp.after.max.ms).
    refused = producer.send(TOPIC, b"from the future", timestamp_ms=in_ten_years)
    try:
        refused.get(timeout=30)
    except InvalidTimestampError as error:
        print("refused:", error)
        print("what to do:", what_to_do(error))

    written = producer.send(TOPIC, b"a payment")
    try:
        print("written at offset", written.get(timeout=30).offset)
    except KafkaTimeoutError:
        # get() has waited long enough; the record is still under way, and its callbacks will tell.
        print("not decided yet")


def main() -> None:
    """Make all of it happen."""
    producer = KafkaProducer(bootstrap_servers=BOOTSTRAP, max_block_ms=10_000)
    try:
        mistakes(producer)
        deliveries(producer)
    except BufferExhaustedError as error:
        # Records come faster than the brokers take them: slow down, or raise buffer_memory.
        print("held back:", error)
    finally:
        # After so long what is left fails, on its futures and callbacks.
        producer.close(timeout=30)
    try:
        producer.send(TOPIC, b"too late")
    except KafkaError as error:
        print("closed:", error)


if __name__ == "__main__":
    main()
