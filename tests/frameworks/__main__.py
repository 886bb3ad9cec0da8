"""Run a framework's service with kprod put in: ``python -m tests.frameworks faststream quixstreams``.

For each one an environment is made (in build/frameworks, and kept), the framework installed into it, and its
service from ``services/`` run against a broker of Apache Kafka: it reads orders from one topic and writes an
invoice for each to another. An independent consumer reads those. It is an error if one is missing, wrong or
there twice, if the invoices of a customer are out of order, or if kprod was not what wrote them.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from confluent_kafka import Producer

import kprod
from tests.kafka.cluster import KafkaCluster, wait_until
from tests.kafka.readers import read_confluent

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent.parent / "build" / "frameworks"
PARTITIONS = 3
CUSTOMERS = 7


@dataclasses.dataclass
class Framework:
    """How to install a framework and start its service."""

    requirements: list[str]
    """For pip."""
    versions: list[str]
    """Whose versions are told."""
    command: list[str]
    """After the environment's Python."""
    ends: bool = False
    """The service ends by itself; others end at SIGTERM."""
    prepare: list[str] | None = None
    """To be run before."""
    feeder: list[str] | None = None
    """What gives the service its work; None: orders are in their topic, as JSON with the customer as key."""
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


FASTSTREAM = ["-m", "faststream", "run"]
FRAMEWORKS = {
    "faststream": Framework(
        ["faststream[kafka,cli]"], ["faststream", "aiokafka"], [*FASTSTREAM, "with_faststream:app"]
    ),
    "faststream-confluent": Framework(
        ["faststream[confluent,cli]"],
        ["faststream", "confluent-kafka"],
        [*FASTSTREAM, "with_faststream_confluent:app"],
    ),
    "faust": Framework(
        ["faust-streaming"],
        ["faust-streaming", "aiokafka"],
        ["-m", "faust", "-A", "with_faust", "worker", "--without-web"],
    ),
    "quixstreams": Framework(
        ["quixstreams"], ["quixstreams", "confluent-kafka"], [str(HERE / "services/with_quixstreams.py")]
    ),
    "bytewax": Framework(
        ["bytewax[kafka]"],
        ["bytewax", "confluent-kafka"],
        ["-m", "bytewax.run", "with_bytewax:flow"],
        ends=True,
    ),
    "celery": Framework(
        ["celery", "kombu[confluentkafka]"],
        ["celery", "kombu", "confluent-kafka"],
        ["-m", "celery", "-A", "with_celery", "worker", "--pool", "solo"],
        feeder=[str(HERE / "services/with_celery.py")],
    ),
    "airflow": Framework(
        ["apache-airflow", "apache-airflow-providers-apache-kafka"],
        ["apache-airflow", "apache-airflow-providers-apache-kafka", "confluent-kafka"],
        ["-m", "airflow", "dags", "test", "invoices"],
        ends=True,
        prepare=["-m", "airflow", "db", "migrate"],
        environment={
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "services"),
        },
    ),
}


def environment_for(name: str, framework: Framework, folder: Path) -> Path:
    """Make the environment with the framework, unless it is there; returns its Python."""
    python = folder / name / "bin" / "python"
    if not (folder / name / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder / name)], check=True)
        # What kprod itself needs; kprod comes from the source tree.
        needs = ["cramjam", "zstandard"]
        subprocess.run(
            [str(python), "-m", "pip", "install", "-q", *framework.requirements, *needs], check=True
        )
        (folder / name / "ready").touch()
    return python


def run(name: str, framework: Framework, folder: Path, cluster: KafkaCluster, count: int) -> str:
    """Run one service; returns what was found, in words.

    Raises:
        RuntimeError, TimeoutError: it did not do its work.
    """
    python = environment_for(name, framework, folder)
    orders, invoices = (cluster.create_topic(f"{kind}-{name}", PARTITIONS) for kind in ("orders", "invoices"))
    work = [{"customer": f"customer-{n % CUSTOMERS}", "number": n} for n in range(count)]
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as ending:
        file, witness, log = (Path(scratch, part) for part in ("orders.ndjson", "witness", "log"))
        witness.touch()
        file.write_text("".join(f"{json.dumps(order)}\n" for order in work), encoding="utf-8")
        if framework.feeder is None:
            feed(cluster, orders, work)
        search = (HERE / "services", HERE / "witness", Path(kprod.__file__).parent.parent)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, search)),
            "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
            "ORDERS": orders,
            "INVOICES": invoices,
            "ORDERS_FILE": str(file),
            "FRAMEWORKS_WITNESS": str(witness),
            "AIRFLOW_HOME": scratch,
            **framework.environment,
        }
        out = ending.enter_context(log.open("wb"))

        def step(command: list[str]) -> None:
            subprocess.run(
                [str(python), *command],
                cwd=scratch,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=True,
            )

        if framework.prepare is not None:
            step(framework.prepare)
        begun = time.monotonic()
        service = subprocess.Popen(
            [str(python), *framework.command],
            cwd=scratch,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        ending.callback(end, service)
        try:
            if framework.feeder is not None:
                step(framework.feeder)
            if framework.ends:
                service.wait(timeout=600)
            else:
                wait_until(
                    lambda: written(cluster, invoices, service) >= count, f"{name}'s invoices", 300, 0.5
                )
                service.send_signal(signal.SIGTERM)
                service.wait(timeout=60)
            took = time.monotonic() - begun
            if service.returncode not in (0, -signal.SIGTERM):
                raise RuntimeError(f"the service ended with {service.returncode}")
            check(cluster, invoices, work)
            producers = witness.read_text(encoding="utf-8").splitlines()
            if not producers:
                raise RuntimeError("the service made no producer of kprod")
        except BaseException:
            sys.stderr.write(log.read_text(encoding="utf-8", errors="replace")[-6000:])
            raise
    versions = ", ".join(f"{part} {version_of(python, part)}" for part in framework.versions)
    return (
        f"{name}: {versions}: {count} invoices, each there once; producers of kprod: {len(producers)}; "
        f"{took:.1f} s, end included (exit status {service.returncode})"
    )


def feed(cluster: KafkaCluster, topic: str, work: list[dict[str, object]]) -> None:
    """Write the orders, by another client than kprod."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    for order in work:
        producer.produce(topic, json.dumps(order), key=str(order["customer"]))
    if producer.flush(60):
        raise RuntimeError(f"{topic} could not be filled")


def written(cluster: KafkaCluster, topic: str, service: subprocess.Popen[bytes]) -> int:
    """How many records the topic has."""
    if service.poll() is not None:
        raise RuntimeError(f"the service ended with {service.returncode} before its work was done")
    return len(read_confluent(cluster.bootstrap_servers, topic, isolation="read_committed"))


def check(cluster: KafkaCluster, topic: str, work: list[dict[str, object]]) -> None:
    """Compare what is in the topic with what has to be."""
    found: dict[str, list[int]] = {}
    for record in read_confluent(cluster.bootstrap_servers, topic, isolation="read_committed"):
        invoice = json.loads(record.value or b"null")
        found.setdefault(invoice["customer"], []).append(invoice["total"])
        if record.key != invoice["customer"].encode():
            raise RuntimeError(f"an invoice of {invoice['customer']} has the key {record.key!r}")
    expected: dict[str, list[int]] = {}
    for order in work:
        expected.setdefault(str(order["customer"]), []).append(int(str(order["number"])) * 2)
    for customer, totals in expected.items():
        if found.pop(customer, []) != totals:
            raise RuntimeError(f"{topic}: the invoices of {customer} are not {totals}, in this order")
    if found:
        raise RuntimeError(f"{topic} has invoices that nobody ordered: {found}")


def end(process: subprocess.Popen[bytes]) -> None:
    """The service, and what it started, must not outlive the run."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def version_of(python: Path, distribution: str) -> str:
    """The version that is installed in an environment."""
    code = f"import importlib.metadata; print(importlib.metadata.version({distribution!r}))"
    return subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> int:
    """The command; 1: a service did not do its work."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.frameworks", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("name", nargs="+", choices=[*FRAMEWORKS, "all"])
    parser.add_argument("--orders", type=int, default=500, help="how many (default: 500)")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, help="where environments are made")
    arguments = parser.parse_args()
    names = list(FRAMEWORKS) if "all" in arguments.name else arguments.name
    failed = 0
    with KafkaCluster(1, auto_create_topics_enable=False) as cluster:
        for name in names:
            try:
                print(
                    run(name, FRAMEWORKS[name], arguments.environments, cluster, arguments.orders), flush=True
                )
            except Exception as error:
                failed = 1
                print(f"{name}: {type(error).__name__}: {error}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
