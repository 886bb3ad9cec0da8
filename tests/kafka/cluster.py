"""Clusters of real Apache Kafka brokers, started and disturbed by tests.

Every node is a broker and a KRaft controller on the loopback interface, with ports, data and logs of its own
that stay the same over ``kill`` and ``start``.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from tests.certificates import Certificate, CertificateAuthority
from tests.kafka import reaper
from tests.kafka.distribution import KafkaDistribution, ensure_distribution

T = TypeVar("T")

START_TIMEOUT_S = 90.0
# From here to Linux's first ephemeral port (32768): an outgoing connection of some process can never be given
# the port of a broker that is down for a moment.
_PORTS = range(20000, 32768)
_LOG_TAIL_BYTES = 16_384

SECURE_LISTENERS: Mapping[str, str] = {
    "SSL": "SSL",
    "MTLS": "SSL",
    "EXPIRED": "SSL",
    "REVOKED": "SSL",
    "ELSEWHERE": "SSL",
    "SASL_PLAINTEXT": "SASL_PLAINTEXT",
    "SASL_SSL": "SASL_SSL",
}
"""Names of the listeners that a secure cluster has beside PLAINTEXT, and their security protocols.

EXPIRED, REVOKED and ELSEWHERE (another host's) are named for what is wrong with the broker's certificate."""
USERS: Mapping[str, str] = {"admin": "admin-secret", "alice": "alice-secret"}
"""Users of a secure cluster and their passwords, for PLAIN and SCRAM. `admin` may do everything."""
CLIENT_NAME = "kprod client"
"""Common name of the client's certificate on a secure cluster; may do everything."""
# The admin client complains about every broker that a test has killed.
_log = logging.getLogger("tests.kafka.admin")
_log.addHandler(logging.NullHandler())
_log.propagate = False


class BrokerFailed(Exception):
    """A broker or one of Kafka's tools did not do its work; the text ends with what it logged."""


class LogBatch(NamedTuple):
    """One record batch as it lies in a partition's log, as told by Kafka's own DumpLogSegments."""

    base_offset: int
    last_offset: int
    records: int
    base_sequence: int
    last_sequence: int
    producer_id: int
    producer_epoch: int
    is_transactional: bool
    create_time: int
    size: int
    magic: int
    compression: str
    is_valid: bool


def wait_until(condition: Callable[[], T], what: str, timeout: float = 30.0, interval: float = 0.05) -> T:
    """Call ``condition`` until it gives something true, and return that.

    Raises:
        TimeoutError: it was still false after ``timeout`` seconds; says ``what`` was waited for.
    """
    deadline = time.monotonic() + timeout
    while True:
        last = condition()
        if last:
            return last
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}; last seen: {last!r}")
        time.sleep(interval)


class _Node:
    """One broker's process, and the files it keeps while it is down."""

    def __init__(self, number: int, folder: Path, ports: Iterator[int]) -> None:
        self.number = number
        self.port = next(ports)
        self.controller_port = next(ports)
        self.secure_ports = {name: next(ports) for name in SECURE_LISTENERS}
        self.folder = folder / f"node-{number}"
        self.folder.mkdir()
        self.data = self.folder / "data"
        self.properties = self.folder / "server.properties"
        self.log = self.folder / "broker.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.paused = False

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.running:
            os.killpg(self.process.pid, number)

    def pause(self) -> None:
        if self.process is None or not self.running:
            return
        self.signal(signal.SIGSTOP)
        # kill() returns while threads on other CPUs still run, for long enough to answer a request; the stop
        # is reported once the last of them stands still. WNOWAIT: who waits for the process's end gets that.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.paused = True

    def reap(self) -> None:
        """Wait for the ended process and forget it."""
        if self.process is not None:
            self.process.wait()
            reaper.unwatch(self.process.pid)
            self.process = None
        self.paused = False


class KafkaCluster:
    """Real Apache Kafka: ``nodes`` brokers, each also a controller, numbered from 1, on 127.0.0.1.

    Args:
        nodes: how many. One and three are what the tests use.
        heap_mb: heap of each broker in MiB.
        distribution: which Kafka; fetched when not given.
        long_running: the JVM compiles what is run often a second time, and better. That takes brokers half a
            minute of CPU time, which tests want for themselves; measurements need it.
        secure: also listen on :data:`SECURE_LISTENERS`, with :attr:`certificates` and :data:`USERS`, and ask
            an authorizer: besides clients on PLAINTEXT and SSL only `admin` and :data:`CLIENT_NAME` may do
            anything. MTLS asks for a client certificate.
        jvm_options: more options of the brokers' Java.
        server_properties: more broker options, such as ``auto_create_topics_enable=False``; an underscore
            stands for a dot, and names with a dot are taken as they are.

    The constructor returns when every broker answers and is in the cluster's metadata.

    Raises:
        KafkaUnavailable: there is no Java or Maven here.
        BrokerFailed: a broker did not come up.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        heap_mb: int = 320,
        long_running: bool = False,
        distribution: KafkaDistribution | None = None,
        secure: bool = False,
        jvm_options: Sequence[str] = (),
        **server_properties: object,
    ) -> None:
        self.distribution = distribution or ensure_distribution()
        self.folder = Path(tempfile.mkdtemp(prefix="kprod-kafka-"))
        self.keep_logs = False
        self._heap_mb = heap_mb
        self._stopped = False
        self._secure = secure
        # Kafka has no option for lists of revoked certificates: its Java has.
        revocation = ("-Dcom.sun.net.ssl.checkRevocation=true", "-Dcom.sun.security.enableCRLDP=true")
        compilers = () if long_running else ("-XX:TieredStopAtLevel=1",)
        self._jvm_options = (*compilers, *(revocation if secure else ()), *jvm_options)
        if secure:
            self.certificates = CertificateAuthority(self.folder)
            self.broker_certificate: Certificate = self.certificates.issue("broker", hosts=("localhost",))
            issue = self.certificates.issue
            # Listeners with `ssl.client.auth` look up what is revoked, where these certificates say.
            self.client_certificate: Certificate = issue(CLIENT_NAME, hosts=("client",), revocable=True)
            self.wrong_client_certificates: Mapping[str, Certificate] = {
                "expired": issue("expired client", hosts=("client",), days=(-2, -1), revocable=True),
                "revoked": issue("revoked client", hosts=("client",), revocable=True),
            }
            self.wrong_certificates: Mapping[str, Certificate] = {
                "EXPIRED": issue("expired broker", hosts=("localhost",), days=(-2, -1)),
                "REVOKED": issue("revoked broker", hosts=("localhost",)),
                "ELSEWHERE": issue("broker elsewhere", hosts=("kafka.example.com",)),
            }
            self.revocations: Path = self.certificates.revoke(
                self.wrong_certificates["REVOKED"], self.wrong_client_certificates["revoked"]
            )
        ports = free_ports()
        self._nodes = {number: _Node(number, self.folder, ports) for number in range(1, nodes + 1)}
        atexit.register(self.stop)
        try:
            self._format(server_properties)
            for node in self._nodes.values():
                self._spawn(node)
            self._admin = AdminClient(
                {
                    "bootstrap.servers": self.bootstrap_servers,
                    "client.id": "kprod-test-harness",
                    # Found again at once after a restart.
                    "reconnect.backoff.ms": 20,
                    "reconnect.backoff.max.ms": 200,
                    "socket.connection.setup.timeout.ms": 2000,
                    "allow.auto.create.topics": False,
                    "log_level": 2,
                },
                logger=_log,
            )
            self.wait_ready()
        except BaseException:
            self.stop()
            raise

    def __repr__(self) -> str:
        state = ", ".join(f"{n.number}: {self._state(n)}" for n in self._nodes.values())
        return f"<KafkaCluster {self.distribution.version} {self.bootstrap_servers} {{{state}}}>"

    def __enter__(self) -> KafkaCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- where it is -----------------------------------------------------------------------------------------

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` of every node, comma-separated."""
        return ",".join(self.address(number) for number in self._nodes)

    def servers(self, listener: str, host: str = "localhost") -> str:
        """``host:port`` of every node for one of :data:`SECURE_LISTENERS`, comma-separated."""
        return ",".join(f"{host}:{node.secure_ports[listener]}" for node in self._nodes.values())

    @property
    def nodes(self) -> list[int]:
        """The brokers' numbers (``node.id``)."""
        return list(self._nodes)

    def address(self, node: int = 1) -> str:
        """``host:port`` of one broker."""
        return f"127.0.0.1:{self._nodes[node].port}"

    def pid(self, node: int = 1) -> int:
        """The process id of a running broker."""
        process = self._nodes[node].process
        if process is None:
            raise ValueError(f"node {node} is not running")
        return process.pid

    # -- disturbing it ---------------------------------------------------------------------------------------

    def kill(self, node: int = 1) -> None:
        """SIGKILL a broker and wait until it is gone: nothing is flushed, no leader is moved beforehand."""
        self._nodes[node].signal(signal.SIGKILL)
        self._nodes[node].reap()

    def shut_down(self, node: int = 1, timeout: float = 30.0) -> None:
        """SIGTERM: the broker hands its leaderships over and ends; killed if it did not in ``timeout`` s."""
        process = self._nodes[node].process
        if process is not None:
            self.resume(node)
            self._nodes[node].signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout)
        self.kill(node)

    def start(self, node: int = 1, *, wait: bool = True) -> None:
        """Start a broker that is down, on the ports and data it had; with ``wait`` until it serves again."""
        if self._nodes[node].running:
            raise ValueError(f"node {node} is running")
        self._nodes[node].reap()
        self._spawn(self._nodes[node])
        if wait:
            self.wait_ready()

    def restart(self, node: int = 1) -> None:
        """:meth:`kill`, then :meth:`start`."""
        self.kill(node)
        self.start(node)

    def pause(self, node: int = 1) -> None:
        """SIGSTOP: the broker keeps its connections and says nothing, from when this returns."""
        self._nodes[node].pause()

    def resume(self, node: int = 1) -> None:
        """SIGCONT after :meth:`pause`."""
        self._nodes[node].signal(signal.SIGCONT)
        self._nodes[node].paused = False

    def heal(self) -> None:
        """Resume and start whatever a test has paused or killed: the next one finds a whole cluster."""
        hurt = False
        for node in self._nodes.values():
            if node.paused:
                self.resume(node.number)
                hurt = True
            if not node.running:
                self.start(node.number, wait=False)
                hurt = True
        if hurt:
            self.wait_ready()

    def stop(self) -> None:
        """End all brokers and remove their data; with ``keep_logs`` their logs stay in :attr:`folder`."""
        if self._stopped:
            return
        self._stopped = True
        atexit.unregister(self.stop)
        for node in self._nodes.values():
            node.signal(signal.SIGKILL)
        for node in self._nodes.values():
            node.reap()
            if self.keep_logs:
                shutil.rmtree(node.data, ignore_errors=True)
        if not self.keep_logs:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- topics ----------------------------------------------------------------------------------------------

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        replication: int = 1,
        config: Mapping[str, object] | None = None,
        assignment: list[list[int]] | None = None,
    ) -> str:
        """Create a topic, wait until all brokers know the leader of every partition, and return its name.

        ``assignment`` gives the replicas of each partition, the preferred leader first, instead of
        ``partitions`` and ``replication``.
        """
        options: dict[str, Any] = {"config": {k: _property_text(v) for k, v in (config or {}).items()}}
        if assignment is not None:
            partitions, options["replica_assignment"] = len(assignment), assignment
        else:
            options["replication_factor"] = replication
        topic = NewTopic(name, num_partitions=partitions, **options)
        self._admin.create_topics([topic], request_timeout=30.0)[name].result()
        self._wait_for_partitions(name, partitions)
        return name

    def delete_topic(self, name: str) -> None:
        """Delete a topic; one that is not there is no error."""
        try:
            self._admin.delete_topics([name], request_timeout=30.0)[name].result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise

    def add_partitions(self, name: str, total: int) -> None:
        """Grow a topic to ``total`` partitions and wait until all have leaders."""
        self._admin.create_partitions([NewPartitions(name, total)], request_timeout=30.0)[name].result()
        self._wait_for_partitions(name, total)

    def alter_topic(self, name: str, **config: object) -> None:
        """Set options of a topic (an underscore stands for a dot) and wait until every broker has them."""
        wanted = {key.replace("_", "."): _property_text(value) for key, value in config.items()}
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in wanted.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        self._admin.incremental_alter_configs([resource], request_timeout=30.0)[resource].result()

        def applied() -> bool:
            asked = ConfigResource(ResourceType.TOPIC, name)
            told = self._admin.describe_configs([asked], request_timeout=10.0)[asked].result()
            return all(told[key].value == value for key, value in wanted.items())

        wait_until(applied, f"topic {name} to have {wanted}")

    def elect_preferred_leaders(self, topic: str) -> None:
        """Give every partition of a topic back to the first of its replicas, and wait until it leads."""
        wanted = [{"topic": topic, "partition": number} for number in range(self.topics()[topic])]
        chosen = self.folder / "leader-election.json"
        chosen.write_text(json.dumps({"partitions": wanted}))
        # By Kafka's own tool: AdminClient.elect_leaders() of confluent-kafka 2.16 fails on its own arguments.
        self._run_tool(
            "org.apache.kafka.tools.LeaderElectionCommand",
            "--bootstrap-server", self.bootstrap_servers, "--election-type", "preferred",
            "--path-to-json-file", str(chosen),
        )  # fmt: skip

        def led_by_the_first() -> bool:
            now = self._metadata().topics[topic].partitions
            return all(partition.leader == partition.replicas[0] for partition in now.values())

        wait_until(led_by_the_first, f"the preferred leaders of {topic}")

    def topics(self) -> dict[str, int]:
        """All topics and their number of partitions."""
        return {name: len(topic.partitions) for name, topic in self._metadata().topics.items()}

    def leader(self, topic: str, partition: int = 0) -> int:
        """The node that leads a partition now, or -1."""
        return int(self._metadata().topics[topic].partitions[partition].leader)

    def in_sync(self, topic: str, partition: int = 0) -> set[int]:
        """The nodes that hold all acknowledged records of a partition (its ISR)."""
        return set(self._metadata().topics[topic].partitions[partition].isrs)

    def log_batches(self, topic: str, partition: int = 0, node: int | None = None) -> list[LogBatch]:
        """The record batches in a partition's log, from the files of ``node`` (the leader if not given)."""
        said = self.dump_log(topic, partition, node)
        return [_parse_batch(line) for line in said.splitlines() if line.startswith("baseOffset:")]

    def dump_log(self, topic: str, partition: int, node: int | None = None, *, records: bool = False) -> str:
        """What DumpLogSegments says of a partition: its log and its aborted transactions.

        With ``records`` also each record, and so which markers commit and which abort.
        """
        node = self.leader(topic, partition) if node is None else node
        data = self._nodes[node].data / f"{topic}-{partition}"
        files = ",".join(str(path) for kind in ("*.log", "*.txnindex") for path in sorted(data.glob(kind)))
        deep = ("--deep-iteration",) if records else ()
        return self._run_tool("kafka.tools.DumpLogSegments", *deep, "--files", files)

    # -- waiting and logs ------------------------------------------------------------------------------------

    def wait_ready(self, timeout: float = START_TIMEOUT_S) -> None:
        """Wait until every broker that was not killed or paused answers ApiVersions and is in the metadata.

        With all of them up, every partition has a leader too.

        Raises:
            BrokerFailed: that took longer than ``timeout`` seconds, or a broker's process ended.
        """
        deadline = time.monotonic() + timeout
        missing = "any answer"
        while time.monotonic() < deadline:
            for node in self._nodes.values():
                if node.process is not None and not node.running:
                    raise BrokerFailed(f"node {node.number} ended by itself\n{self.log_tail(node.number)}")
            missing = self._what_is_missing()
            if not missing:
                return
            time.sleep(0.05)
        raise BrokerFailed(f"no {missing} within {timeout:g} s\n{self.log_tail()}")

    def log_tail(self, node: int | None = None) -> str:
        """The end of what the brokers (or one of them) logged."""
        tails = []
        for number in self._nodes if node is None else [node]:
            path = self._nodes[number].log
            with open(path, "rb") if path.exists() else open(os.devnull, "rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - _LOG_TAIL_BYTES))
                tails.append(f"--- node {number} ({path})\n{log.read().decode(errors='replace')}")
        return "\n".join(tails)

    def _what_is_missing(self) -> str:
        expected = [node for node in self._nodes.values() if node.running and not node.paused]
        for node in expected:
            if not _answers_api_versions(node.port):
                return f"answer from node {node.number}"
        try:
            metadata = self._admin.list_topics(timeout=5.0)
        except KafkaException as error:
            return f"metadata ({error.args[0].str()})"
        if not {node.number for node in expected} <= set(metadata.brokers):
            return f"more brokers than {sorted(metadata.brokers)} in the metadata"
        if len(expected) < len(self._nodes):
            return ""
        for name, topic in metadata.topics.items():
            for number, partition in topic.partitions.items():
                if partition.leader < 0:
                    return f"leader of {name}-{number}"
        return ""

    def _wait_for_partitions(self, topic: str, count: int) -> None:
        # Each broker gets the controller's word in its own time; a client may ask any of them.
        def told_everywhere() -> bool:
            for number, node in self._nodes.items():
                if not node.running or node.paused:
                    continue
                found = self._metadata_from(number).topics.get(topic)
                if found is None or len(found.partitions) != count:
                    return False
                if any(partition.leader < 0 for partition in found.partitions.values()):
                    return False
            return True

        wait_until(told_everywhere, f"all {count} partitions of {topic} to have leaders")

    def _metadata_from(self, node: int) -> Any:
        # A new client knows no other broker than the one it is given.
        admin = AdminClient({"bootstrap.servers": self.address(node), "log_level": 2}, logger=_log)
        return admin.list_topics(timeout=10.0)

    def _metadata(self) -> Any:
        # All topics: asking librdkafka's admin client for one by name would create it. It goes on asking a
        # broker that is paused, so with one the others are asked by name.
        if any(node.paused for node in self._nodes.values()):
            return self._metadata_from(
                next(n.number for n in self._nodes.values() if n.running and not n.paused)
            )
        deadline = time.monotonic() + 60
        while True:
            try:
                return self._admin.list_topics(timeout=15.0)
            except KafkaException:
                # Where a broker was killed it may go on asking that one.
                if time.monotonic() >= deadline:
                    raise

    # -- processes -------------------------------------------------------------------------------------------

    def _format(self, overrides: Mapping[str, object]) -> None:
        properties = self._server_properties()
        if self._secure:
            properties.update(self._security_properties())
        properties.update(
            {
                name if "." in name else name.replace("_", "."): _property_text(v)
                for name, v in overrides.items()
            }
        )
        cluster_id = "kprod-test-cluster-001"  # 22 characters, the length of a base64 UUID
        formatting = []
        for node in self._nodes.values():
            plaintext = f"PLAINTEXT://127.0.0.1:{node.port}"
            controller = f"CONTROLLER://127.0.0.1:{node.controller_port}"
            others = ports = ""
            if self._secure:
                others = "".join(f",{name}://localhost:{port}" for name, port in node.secure_ports.items())
                ports = "".join(f",{name}://127.0.0.1:{port}" for name, port in node.secure_ports.items())
            own = {
                "node.id": str(node.number),
                "listeners": f"{plaintext},{controller}{ports}",
                "advertised.listeners": f"{plaintext}{others}",
                "log.dirs": str(node.data),
            }
            node.properties.write_text(
                "".join(f"{key}={value}\n" for key, value in {**own, **properties}.items())
            )
            command = self.distribution.tool(
                "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(node.properties),
                *(self._scram_arguments() if self._secure else ()),
            )  # fmt: skip
            formatting.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
                )
            )
        for process in formatting:
            said, _ = process.communicate(timeout=START_TIMEOUT_S)
            if process.returncode:
                raise BrokerFailed(f"formatting the storage failed:\n{said.decode(errors='replace')}")

    def _run_tool(self, main_class: str, *arguments: str) -> str:
        command = self.distribution.tool(main_class, *arguments)
        said = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
        )
        if said.returncode:
            raise BrokerFailed(f"{main_class} failed:\n{said.stdout[-2000:]}{said.stderr[-2000:]}")
        return said.stdout

    def _server_properties(self) -> dict[str, str]:
        replicas = min(3, len(self._nodes))
        in_sync = max(1, replicas - 1)
        voters = ",".join(f"{n.number}@127.0.0.1:{n.controller_port}" for n in self._nodes.values())
        return {
            "process.roles": "broker,controller",
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "num.network.threads": "2",
            "num.io.threads": "4",
            "background.threads": "2",
            "num.partitions": "1",
            "default.replication.factor": str(replicas),
            "offsets.topic.replication.factor": str(replicas),
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": str(replicas),
            "transaction.state.log.min.isr": str(in_sync),
            "transaction.state.log.num.partitions": "2",
            "group.initial.rebalance.delay.ms": "0",
            # A killed broker is noticed, and its partitions led by others, within about three seconds.
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "controller.quorum.election.timeout.ms": "500",
            "controller.quorum.election.backoff.max.ms": "500",
            "controller.quorum.fetch.timeout.ms": "1500",
            "replica.lag.time.max.ms": "5000",
            # Leaders move when a test says so, not every five minutes.
            "auto.leader.rebalance.enable": "false",
            # Preallocated index files (10 MiB each by default) of many small topics would fill the disk.
            "log.index.size.max.bytes": "1048576",
        }

    @staticmethod
    def _scram_arguments() -> Iterator[str]:
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
            for name, password in USERS.items():
                yield "--add-scram"
                yield f"{mechanism}=[name={name},password={password}]"

    def _security_properties(self) -> dict[str, str]:
        protocols = ",".join(f"{name}:{protocol}" for name, protocol in SECURE_LISTENERS.items())
        properties = {
            "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,{protocols}",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.broker_certificate.store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificates.file),
            "listener.name.mtls.ssl.client.auth": "required",
            **{
                f"listener.name.{listener.lower()}.ssl.keystore.location": str(certificate.store)
                for listener, certificate in self.wrong_certificates.items()
            },
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:admin;User:CN={CLIENT_NAME}",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        }
        # Sessions of one mechanism end (KIP-368).
        for listener in ("sasl_plaintext", "sasl_ssl"):
            properties[f"listener.name.{listener}.scram-sha-256.connections.max.reauth.ms"] = "5000"
        users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
        modules = {
            "plain": f"plain.PlainLoginModule required {users};",
            "scram-sha-256": "scram.ScramLoginModule required;",
            "scram-sha-512": "scram.ScramLoginModule required;",
            # Unsecured tokens are taken by default: signed by nobody.
            "oauthbearer": (
                'oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
            ),
        }
        for listener in ("sasl_plaintext", "sasl_ssl"):
            for mechanism, module in modules.items():
                properties[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = (
                    f"org.apache.kafka.common.security.{module}"
                )
        return properties

    def _spawn(self, node: _Node) -> None:
        command = self.distribution.command(
            "kafka.Kafka",
            str(node.properties),
            heap_mb=self._heap_mb,
            jvm_options=self._jvm_options,
        )
        with open(node.log, "ab") as log:
            # A session of its own: a Ctrl-C ends the test run, which ends the brokers in its own order.
            node.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=node.folder,
            )
        reaper.watch(node.process.pid)

    def _state(self, node: _Node) -> str:
        return "down" if not node.running else "paused" if node.paused else "up"


def free_ports() -> Iterator[int]:
    """Ports of the loopback interface that nobody listens on, none twice."""
    tried = random.sample(_PORTS, len(_PORTS))
    for port in tried:
        with socket.socket() as probe:
            # As the broker will: connections of an earlier broker in TIME_WAIT do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        yield port


def _answers_api_versions(port: int) -> bool:
    # ApiVersions v0 (key 18), correlation id 7, null client id: the one request every broker answers.
    request = b"\x00\x00\x00\x0a" + b"\x00\x12\x00\x00" + b"\x00\x00\x00\x07" + b"\xff\xff"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            connection.sendall(request)
            answer = b""
            while len(answer) < 10:
                more = connection.recv(64)
                if not more:
                    return False
                answer += more
    except OSError:
        return False
    # After the length: the correlation id, then error code 0.
    return answer[4:10] == b"\x00\x00\x00\x07\x00\x00"


def _property_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse_batch(line: str) -> LogBatch:
    told = dict(re.findall(r"(\w+): (\S+)", line))
    return LogBatch(
        base_offset=int(told["baseOffset"]),
        last_offset=int(told["lastOffset"]),
        records=int(told["count"]),
        base_sequence=int(told["baseSequence"]),
        last_sequence=int(told["lastSequence"]),
        producer_id=int(told["producerId"]),
        producer_epoch=int(told["producerEpoch"]),
        is_transactional=told["isTransactional"] == "true",
        create_time=int(told.get("CreateTime") or told["LogAppendTime"]),
        size=int(told["size"]),
        magic=int(told["magic"]),
        compression=told["compresscodec"].lower(),
        is_valid=told["isvalid"] == "true",
    )
