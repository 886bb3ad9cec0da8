"""aiokafka's producer tests."""

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
    """Every way by which the tests get at the producer leads to kprod's."""
    import aiokafka
    import aiokafka.client
    import aiokafka.cluster
    import aiokafka.consumer
    import aiokafka.errors
    import aiokafka.helpers
    import aiokafka.producer
    import aiokafka.producer.producer

    from kprod.compat.aiokafka import AIOKafkaProducer

    for module in (aiokafka, aiokafka.producer, aiokafka.producer.producer):
        module.AIOKafkaProducer = AIOKafkaProducer
    # The checkout is on the path as well, without its compiled parts: the installed one must be what is used.
    assert "site-packages" in str(sys.modules["aiokafka"].__file__), aiokafka.__file__


_SEND = "replaces `producer.client.send` to make up answers of brokers"
_METADATA = "changes aiokafka's metadata objects under the producer"
_TXN = "changes the sequence numbers in `producer._txn_manager`"

SUITE = Suite(
    client="aiokafka",
    distribution="aiokafka",
    repository="aio-libs/aiokafka",
    files=("tests/test_producer.py", "tests/test_transactional_producer.py"),
    broker_options={"num.partitions": 2},
    swap=swap,
    plugins=("aiokafka_fixtures",),
    arguments=("--noconftest",),
    secure=True,
    private={
        "test_producer.py::test_producer_notopic": "replaces `AIOKafkaClient._metadata_update`",
        "test_producer.py::test_producer_context_manager": "looks at `producer._sender._sender_task`",
        "test_producer.py::test_producer_send_leader_notfound": (
            "replaces `ClusterMetadata.leader_for_partition`"
        ),
        "test_producer.py::test_producer_send_timeout": _SEND,
        "test_producer.py::test_producer_send_error": _SEND,
        "test_producer.py::test_producer_correct_time_returned": _SEND,
        "test_producer.py::test_producer_send_empty_batch": (
            "counts calls of `producer._sender._send_produce_req`"
        ),
        "test_producer.py::test_producer_send_reenque_resets_waiters": _SEND,
        "test_producer.py::test_producer_idempotence_configuration": "looks at `producer._sender._acks`",
        "test_producer.py::test_producer_indempotence_no_duplicates": _SEND,
        "test_producer.py::test_producer_invalid_leader_retry_metadata": _METADATA,
        "test_producer.py::test_producer_leader_change_preserves_order": _METADATA,
        "test_producer.py::test_producer_sender_errors_propagate_to_producer": (
            "makes `producer._sender._send_produce_req` raise"
        ),
        "test_transactional_producer.py::test_producer_transactional_restart_reaquire_pid": (
            "looks at `producer._txn_manager.producer_id`"
        ),
        "test_transactional_producer.py::test_producer_transactional_raise_out_of_sequence": _TXN,
        "test_transactional_producer.py::test_producer_transactional_aborting_previous_failure": _TXN,
        "test_transactional_producer.py::test_producer_transactional_cancel_txn_methods": (
            "compares `producer._txn_manager.state` with aiokafka's own states"
        ),
    },
)
