"""kafka-python's producer tests."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.compat.suite import Suite
else:
    try:
        from tests.compat.suite import Suite
    except ImportError:  # in the process that runs the tests
        from suite import Suite


def swap() -> None:
    """Every way by which the tests get at the producer and its partitioners leads to kprod's."""
    import kafka
    import kafka.partitioner
    import kafka.producer
    import kafka.producer.kafka
    import kafka.serializer

    from kprod.compat.kafka import KafkaProducer, partitioner

    for module in (kafka, kafka.producer, kafka.producer.kafka):
        module.KafkaProducer = KafkaProducer
    for name in ("DefaultPartitioner", "StickyPartitioner", "murmur2"):
        setattr(kafka.partitioner, name, getattr(partitioner, name))
    # The checkout is on the path as well: the installed one must be what is used.
    assert "site-packages" in str(sys.modules["kafka"].__file__), kafka.__file__


_MANAGER = "looks at `producer._transaction_manager`"
_CLIENT = "puts kafka-python's in-memory network, `MockBroker`, into the producer"
_PARTS = "makes a producer without `__init__()` and sets its parts"
_PICK = "calls `StickyPartitioner._pick_sticky_locked()`"

_CONSUMER = (
    "",
    "_unsupported_encoding",
    "__blocking",
    "__offset_commit_resume",
    "_max_bytes_simple",
    "_max_bytes_one_msg",
    "_offsets_for_time",
    "_offsets_search_many_partitions",
    "_position_after_seek_to_end",
)
"""The tests of kafka-python's consumer and admin client that write with the producer."""
_ADMIN = ("groups", "groups_with_errors", "records", "records_with_errors")

SUITE = Suite(
    client="kafka_python",
    distribution="kafka-python",
    repository="dpkp/kafka-python",
    release="3.0.11",
    files=(
        "test/producer/test_kip679_config.py",
        "test/producer/test_partitioner.py",
        "test/producer/test_producer.py",
        "test/integration/test_producer_integration.py",
        *(f"test/integration/test_consumer_integration.py::test_kafka_consumer{name}" for name in _CONSUMER),
        *(f"test/integration/test_admin_integration.py::test_delete_{name}" for name in _ADMIN),
    ),
    broker_options={"num.partitions": 4},
    swap=swap,
    environment={
        "KAFKA_URI": "kafka://{bootstrap}",
        "KAFKA_VERSION": "4.1.1",
        "KAFKA_ROOT": "{folder}",
    },
    private={
        "test_kip679_config.py::test_bare_construct_is_idempotent": _MANAGER,
        "test_kip679_config.py::test_opt_out_disables_idempotence_but_keeps_acks_default": _MANAGER,
        "test_kip679_config.py::test_acks_1_silently_disables": _MANAGER,
        "test_kip679_config.py::test_acks_0_silently_disables": _MANAGER,
        "test_kip679_config.py::test_retries_zero_silently_disables": _MANAGER,
        "test_kip679_config.py::test_max_in_flight_too_high_silently_disables": _MANAGER,
        "test_kip679_config.py::test_old_broker_silently_disables": _MANAGER,
        "test_kip679_config.py::test_acks_all_string_accepted": _MANAGER,
        "test_partitioner.py::test_no_available_picks_without_avoid": _PICK,
        "test_partitioner.py::test_single_available_partition_repeats_even_if_avoided": _PICK,
        "test_partitioner.py::test_pick_sticky_unknown_topic_returns_none": _PICK,
        "test_producer.py::test_kafka_producer_thread_close": _CLIENT,
        "test_producer.py::test_kafka_producer_context_manager_closes_on_exit": _CLIENT,
        "test_producer.py::test_send_null_key_triggers_on_new_batch_via_abort_retry": _CLIENT,
        "test_producer.py::test_send_keyed_skips_on_new_batch": _CLIENT,
        "test_producer.py::test_send_with_explicit_partition_skips_on_new_batch": _CLIENT,
        "test_producer.py::test_partition_calls_partitioner_partition_with_cluster": _PARTS,
        "test_producer.py::test_partition_explicit_partition_skips_partitioner": _PARTS,
        "test_producer.py::test_partition_explicit_partition_rejects_unknown_partition": _PARTS,
        "test_producer.py::test_idempotent_producer_reset_producer_id": "tests `TransactionManager` alone",
    },
)
