"""Stand-ins for the producers of other clients: change the import, keep the code.

``kprod.compat.aiokafka`` has ``AIOKafkaProducer``, ``kprod.compat.confluent_kafka`` has ``Producer``,
``SerializingProducer`` and ``AIOProducer``, ``kprod.compat.kafka`` has kafka-python's ``KafkaProducer``.
Where the other client is installed, exceptions are subclasses of its own, so ``except`` clauses go on
working; it need not be installed. docs/compatibility.md lists which of their own tests pass, and why the
rest cannot. Where a framework does the import, :func:`install` puts them into the other client's modules:
docs/frameworks.md.
"""

from kprod.compat.installation import install, uninstall

__all__ = ["install", "uninstall"]
