"""``producer.client``: what frameworks and tracing tools use of aiokafka's client, on kprod's metadata."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from kprod.cluster.metadata import ClusterSnapshot
from kprod.errors import KafkaError

if TYPE_CHECKING:
    from kprod.compat.aiokafka.producer import AIOKafkaProducer


class ClientView:
    """The cluster as the producer knows it, under the names of ``AIOKafkaClient``.

    Args:
        producer: whose.
        bootstrap_servers, client_id: as the application gave them.
    """

    def __init__(self, producer: AIOKafkaProducer, bootstrap_servers: Any, client_id: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._client_id = client_id
        self._topics: set[str] = set()
        self._owner = weakref.ref(producer)

    @property
    def _producer(self) -> AIOKafkaProducer:
        producer = self._owner()
        if producer is None:
            raise ReferenceError("the producer of this client is gone")
        return producer

    @property
    def cluster(self) -> ClusterSnapshot:
        """Brokers, topics and leaders: ``topics()``, ``partitions_for_topic()``, ``brokers()`` ..."""
        return self._producer._cluster()

    def add_topic(self, topic: str) -> None:
        """Ask for a topic with the next :meth:`force_metadata_update`."""
        self._topics.add(topic)

    async def force_metadata_update(self) -> bool:
        """Ask the brokers anew. False: a topic that was added is not known yet."""
        self._producer._refresh()
        try:
            for topic in self._topics:
                await self._producer.partitions_for(topic)
        except KafkaError:
            return False
        return True

    async def fetch_all_metadata(self) -> ClusterSnapshot:
        """The cluster with the topics that are used; kprod does not ask for all topics there are."""
        await self.force_metadata_update()
        return self.cluster

    async def _wait_on_metadata(self, topic: str) -> set[int]:
        return await self._producer.partitions_for(topic)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the client of kprod.compat.aiokafka has no {name!r}: requests of your own need aiokafka's "
            "AIOKafkaClient, which works beside kprod"
        )
