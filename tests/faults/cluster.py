"""Three real brokers, each behind a :class:`~tests.faults.proxy.FaultNetwork`.

Every broker has a second listener, FAULTY, and tells clients that come through it the address of its proxy.
Replication, the harness's own admin client and the consumers that check results use the first one, which
nothing is wrong with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.faults.proxy import FaultNetwork, _bound
from tests.kafka.cluster import KafkaCluster, _Node, free_ports

_TRANSACTIONS = "__transaction_state"


class FaultyCluster(KafkaCluster):
    """A :class:`KafkaCluster` with proxies; :attr:`faulty_servers` is for the producers under test.

    Args:
        nodes: how many brokers.
        seed: of the faults.
        quiet: keep the journal of faults, print nothing.
        more: what :class:`KafkaCluster` takes.
    """

    network: FaultNetwork

    def __init__(self, nodes: int = 3, *, seed: int = 0, quiet: bool = False, **more: Any) -> None:
        self.network = FaultNetwork(seed, quiet=quiet)
        more.setdefault("heap_mb", 256)
        try:
            super().__init__(nodes, **more)
        except BaseException:
            self.network.close()
            raise

    @property
    def faulty_servers(self) -> str:
        """``host:port`` of every broker's proxy, comma-separated."""
        return ",".join(f"127.0.0.1:{self.network.port(node)}" for node in self.nodes)

    def __enter__(self) -> FaultyCluster:
        return self

    def kill(self, node: int = 1) -> None:
        """SIGKILL a broker; its proxy then refuses connections, as the host of a dead broker does."""
        self.network.note("SIGKILL", node)
        super().kill(node)
        self.network.shut(node)

    def pause(self, node: int = 1) -> None:
        """SIGSTOP a broker."""
        self.network.note("SIGSTOP", node)
        super().pause(node)

    def resume(self, node: int = 1) -> None:
        """SIGCONT a broker."""
        self.network.note("SIGCONT", node)
        super().resume(node)

    def heal(self) -> None:
        """All brokers up, and nothing wrong with the network."""
        self.network.heal()
        super().heal()

    def stop(self) -> None:
        """End brokers and proxies."""
        super().stop()
        self.network.close()

    def leaders(self, topics: Iterable[str]) -> dict[tuple[str, int], int]:
        """The node that leads each partition of ``topics``, or -1."""
        told = self._metadata().topics
        return {(topic, n): int(p.leader) for topic in topics for n, p in told[topic].partitions.items()}

    def least_in_sync(self, topics: Iterable[str]) -> int:
        """The fewest replicas in sync of any partition of ``topics``."""
        told = self._metadata().topics
        return min(len(p.isrs) for topic in topics for p in told[topic].partitions.values())

    def transaction_coordinator(self, transactional_id: str) -> int:
        """The node that coordinates the transactions of an id of ASCII characters."""
        # Java's String.hashCode(), absolute, over the partitions of the topic.
        number = 0
        for character in transactional_id.encode("ascii"):
            number = (31 * number + character) & 0xFFFFFFFF
        number = abs(number - (1 << 32 if number >= 1 << 31 else 0)) % self.topics()[_TRANSACTIONS]
        return self.leader(_TRANSACTIONS, number)

    def set_transaction_version(self, version: int) -> None:
        """Finalise the feature transaction.version: 2 is KIP-890's protocol, 1 and 0 the one before it."""
        self._run_tool(
            "org.apache.kafka.tools.FeatureCommand", "--bootstrap-server", self.bootstrap_servers,
            "downgrade" if version < 2 else "upgrade", "--feature", f"transaction.version={version}",
        )  # fmt: skip

    def set_producer_quota(self, client_id: str, bytes_per_second: int | None) -> None:
        """Limit what producers of a client id may send to each broker; None: as much as they like."""
        change = (
            ("--delete-config", "producer_byte_rate")
            if bytes_per_second is None
            else ("--add-config", f"producer_byte_rate={bytes_per_second}")
        )
        # It moved with Kafka 4.2.
        package = "kafka.admin" if self._version() < (4, 2) else "org.apache.kafka.tools"
        self._run_tool(
            f"{package}.ConfigCommand",
            "--bootstrap-server", self.bootstrap_servers, "--alter", *change,
            "--entity-type", "clients", "--entity-name", client_id,
        )  # fmt: skip

    def _version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.distribution.version.split(".")[:2])

    def _format(self, overrides: Mapping[str, object]) -> None:
        taken = {port for node in self._nodes.values() for port in (node.port, node.controller_port)}
        ports: Iterator[int] = (port for port in free_ports() if port not in taken)
        listeners = {number: next(ports) for number in self._nodes}
        for number in self._nodes:
            # Bound from here on, to be nobody else's; it listens when the broker does.
            self.network.add(number, _bound(next(ports)), listeners[number])
        protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,FAULTY:PLAINTEXT"
        super()._format({**overrides, "listener.security.protocol.map": protocols})
        for number, node in self._nodes.items():
            own, faulty = f"PLAINTEXT://127.0.0.1:{node.port}", f"FAULTY://127.0.0.1:{listeners[number]}"
            advertised = f"FAULTY://127.0.0.1:{self.network.port(number)}"
            with open(node.properties, "a") as properties:
                # A name given twice has its last value.
                properties.write(
                    f"listeners={own},CONTROLLER://127.0.0.1:{node.controller_port},{faulty}\n"
                    f"advertised.listeners={own},{advertised}\n"
                )

    def _spawn(self, node: _Node) -> None:
        self.network.note("started", node.number)
        super()._spawn(node)
        self.network.open(node.number)
