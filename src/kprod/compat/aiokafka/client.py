"""``producer.client``: what frameworks and tracing tools use of aiokafka's client, on kprod's metadata."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kprod.cluster.metadata import ClusterSnapshot
from kprod.compat.exceptions import module_if_installed
from kprod.errors import KafkaError

if TYPE_CHECKING:
    from kprod.compat.aiokafka.producer import AIOKafkaProducer


class ClientView:
    """The cluster as the producer knows it, under the names of ``AIOKafkaClient``.

    Args:
        producer: whose.
        options: bootstrap servers, client id, security, ... as ``aiokafka.AIOKafkaClient`` takes them.
    """

    def __init__(self, producer: AIOKafkaProducer, options: Mapping[str, Any]) -> None:
        self._bootstrap_servers = options["bootstrap_servers"]
        self._client_id = options["client_id"]
        self._options = options
        self._peer: Any = None
        self._peer_lock = asyncio.Lock()
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

    async def send(self, node_id: int, request: Any) -> Any:
        """Send a request of the application's own, made with ``aiokafka.protocol``.

        It goes through an ``AIOKafkaClient`` of aiokafka, which the first such request makes and the
        producer's ``stop()`` closes.

        Args:
            node_id: the broker's number.
            request: the request.

        Raises:
            AttributeError: aiokafka is not installed.
            aiokafka.errors.KafkaError: the broker cannot be reached.
        """
        async with self._peer_lock:
            if self._peer is None:
                package = module_if_installed("aiokafka")
                if package is None:
                    raise AttributeError("requests of your own need aiokafka, which is not installed")
                client = package.AIOKafkaClient(**self._options)
                await client.bootstrap()
                self._peer = client
        return await self._peer.send(node_id, request)

    async def close(self) -> None:
        """End what :meth:`send` has opened."""
        peer, self._peer = self._peer, None
        if peer is not None:
            await peer.close()

    async def _wait_on_metadata(self, topic: str) -> set[int]:
        return await self._producer.partitions_for(topic)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the client of kprod.compat.aiokafka has no {name!r}: use aiokafka's AIOKafkaClient, which "
            "works beside kprod"
        )
