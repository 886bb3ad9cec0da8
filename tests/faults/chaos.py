"""Full rate while real brokers are killed, stopped and cut off: ``python -m tests.faults.chaos``.

Afterwards a consumer of another client reads everything, and each record is accounted for. The exit status
is 1 when one is lost, doubled or out of order, or a transaction is not whole.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.faults.chaos_checker import Findings, check
from tests.faults.chaos_worker import Account, Partition, Task, committed_offset, work
from tests.faults.cluster import FaultyCluster
from tests.faults.proxy import Fault
from tests.kafka.cluster import wait_until

# Between two disturbances, so that what follows each can be told apart.
_PAUSE_S = (1.0, 3.0)
# An interruption that begins later has another cause.
_CAUSED_WITHIN_S = 2.0
REQUEST_TIMEOUT_MS = 5000
"""Of both clients: pauses and black holes can be longer."""


class Kill(NamedTuple):
    """A SIGKILL: when, by the monotonic clock, and what the broker led."""

    at: float
    node: int
    led: frozenset[Partition]


@dataclass
class Plan:
    """What a run is made of; see ``--help``."""

    client: str = "kprod"
    seconds: float = 60.0
    seed: int = 1
    producers: int = 3
    rate: float = 20_000.0
    transactions: bool = False
    faults: bool = True
    topics: int = 3
    partitions: int = 4


@dataclass
class Report:
    """What came of a run."""

    plan: Plan
    findings: Findings
    faults: Counter[str]
    kills: int
    recoveries: list[float]
    gaps_longest: float
    sent: int
    rate: float
    committed: int
    aborted: Counter[str]
    errors: Counter[str]
    repeated_calls: Counter[str]
    new_producers: Counter[str]
    crashed: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Nothing lost, doubled, out of order, half visible; no producer ended before its time."""
        return not self.findings.problems and not self.crashed

    def lines(self) -> list[tuple[str, str]]:
        """The report as a table of two columns."""
        findings = self.findings
        lines = [
            ("records sent", f"{self.sent:,}"),
            ("acknowledged and found", f"{findings.acknowledged:,}, {self.rate:,.0f} a second"),
            ("lost", f"{findings.lost}"),
            ("doubled", f"{findings.doubled}"),
            ("out of order", f"{findings.out_of_order}"),
            ("neither delivered nor failed", f"{findings.undecided}"),
            ("failed records and calls", _counted(self.errors)),
            ("faults", _counted(self.faults)),
            ("interruption after a leader's death, p50", _seconds(self.recoveries, 0.5)),
            ("interruption after a leader's death, max", _seconds(self.recoveries, 1.0)),
            ("longest interruption of all", f"{self.gaps_longest:.2f} s"),
        ]
        if self.plan.transactions:
            lines[2:2] = [
                ("transactions committed", f"{self.committed:,}"),
                ("transactions aborted", _counted(self.aborted)),
                ("committed, not wholly visible", f"{findings.incomplete_transactions}"),
                ("records of aborted ones visible", f"{findings.aborted_visible}"),
                ("offsets that do not fit the outputs", f"{findings.wrong_offsets}"),
                ("producers that had to be made anew", _counted(self.new_producers)),
                ("calls repeated after a timeout", _counted(self.repeated_calls)),
            ]
        if self.crashed:
            lines.append(("producers that crashed", "; ".join(self.crashed)))
        return lines


class _Disturber:
    """Does one bad thing after the other, each kind as often as any other."""

    def __init__(self, cluster: FaultyCluster, topics: Sequence[str], seed: int) -> None:
        self._cluster = cluster
        self._topics = topics
        self._random = random.Random(seed)
        self.kills: list[Kill] = []
        self.done: Counter[str] = Counter()
        self._deck: list[Callable[[int], None]] = []

    def run(self, seconds: float) -> None:
        """Go on for about that long; everything is whole again when it returns."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(self._random.uniform(*_PAUSE_S))
            if not self._deck:
                # Killing is the point of it.
                kinds = [
                    self._kill, self._kill, self._pause, self._drop_responses, self._reset_requests,
                    self._reset_all, self._black_hole, self._slow,
                ]  # fmt: skip
                self._deck = self._random.sample(kinds, len(kinds))
            disturb = self._deck.pop()
            node = self._random.choice(self._cluster.nodes)
            disturb(node)
            self.done[disturb.__name__.strip("_").replace("_", " ")] += 1
        self._cluster.heal()
        self._cluster.wait_ready()

    def _kill(self, node: int) -> None:
        # min.insync.replicas of two, three replicas: with one broker down at a time nothing is out of reach.
        self._cluster.wait_ready()
        wait_until(lambda: self._cluster.least_in_sync(self._topics) == 3, "replicas in sync", 120)
        leaders = self._cluster.leaders(self._topics)
        led = frozenset(place for place, leader in leaders.items() if leader == node)
        self.kills.append(Kill(time.monotonic(), node, led))
        self._cluster.kill(node)
        time.sleep(self._random.uniform(0.5, 3.0))
        self._cluster.start(node, wait=False)

    def _pause(self, node: int) -> None:
        self._cluster.pause(node)
        time.sleep(self._random.uniform(1.0, 1.6 * REQUEST_TIMEOUT_MS / 1000))
        self._cluster.resume(node)

    def _drop_responses(self, node: int) -> None:
        self._requests_for(Fault.DROP_RESPONSE, Fault.DROP_RESPONSE)

    def _reset_requests(self, node: int) -> None:
        self._requests_for(Fault.RESET_BEFORE, Fault.RESET_MID_REQUEST, Fault.RESET_MID_RESPONSE)

    def _requests_for(self, *faults: Fault) -> None:
        network = self._cluster.network
        rules = [network.inject(fault, None, times=15, probability=0.1) for fault in faults]
        time.sleep(self._random.uniform(1.0, 4.0))
        for rule in rules:
            network.cancel(rule)

    def _reset_all(self, node: int) -> None:
        for _ in range(self._random.randint(1, 4)):
            self._cluster.network.reset(node)
            time.sleep(self._random.uniform(0.01, 0.5))

    def _black_hole(self, node: int) -> None:
        self._cluster.network.black_hole(node)
        time.sleep(self._random.uniform(0.5, 1.5 * REQUEST_TIMEOUT_MS / 1000))
        self._cluster.network.heal(node)

    def _slow(self, node: int) -> None:
        self._cluster.network.slow(node, delay=0.05)
        time.sleep(self._random.uniform(1.0, 4.0))
        self._cluster.network.heal(node)


def chaos_cluster(seed: int, *, quiet: bool = False, long_running: bool = False) -> FaultyCluster:
    """Three brokers as chaos runs want them: leaders go back to where they were within seconds."""
    return FaultyCluster(
        3,
        seed=seed,
        quiet=quiet,
        long_running=long_running,
        min_insync_replicas=2,
        auto_leader_rebalance_enable=True,
        leader_imbalance_check_interval_seconds=5,
        leader_imbalance_per_broker_percentage=0,
    )


def run(cluster: FaultyCluster, plan: Plan) -> Report:
    """One run on a cluster of :func:`chaos_cluster`, with topics of its own."""
    name = f"{plan.client}-{plan.seed}-{time.time_ns() % 1_000_000}"
    topics = [
        cluster.create_topic(f"chaos-{name}-{number}", plan.partitions, 3) for number in range(plan.topics)
    ]
    read_from = cluster.create_topic(f"input-{name}", plan.producers, 3) if plan.transactions else ""
    cluster.network.reseed(plan.seed)
    context = multiprocessing.get_context("spawn")
    workers = []
    for number in range(plan.producers):
        task = Task(
            number=number,
            client=plan.client,
            servers=cluster.faulty_servers,
            direct_servers=cluster.bootstrap_servers,
            topics=topics,
            partitions=plan.partitions,
            rate=plan.rate / plan.producers,
            seconds=plan.seconds,
            seed=plan.seed,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            transactional_id=f"{name}-{number}" if plan.transactions else None,
            input_topic=read_from,
        )
        pipe, theirs = context.Pipe()
        process = context.Process(target=work, args=(task, theirs), name=f"producer-{number}", daemon=True)
        process.start()
        workers.append((process, pipe))
    accounts: list[Account] = []
    try:
        for _, pipe in workers:
            _expect(pipe, 120)
        for _, pipe in workers:
            pipe.send("go")
        disturber = _Disturber(cluster, topics, plan.seed)
        if plan.faults:
            disturber.run(plan.seconds - 5)
        accounts = [_expect(pipe, plan.seconds + 400) for _, pipe in workers]
    finally:
        for process, _ in workers:
            process.join(20)
            process.kill()
    offsets = None
    if plan.transactions:
        offsets = {
            account.number: committed_offset(
                cluster.bootstrap_servers, f"group-of-{name}-{account.number}", read_from, account.number
            )
            for account in accounts
        }
    findings = check(cluster.bootstrap_servers, topics, accounts, offsets)
    if findings.problems:
        _keep_batches(cluster, topics, findings)
    for topic in (*topics, read_from):
        if topic:
            cluster.delete_topic(topic)
    return _report(plan, findings, disturber, accounts)


def _keep_batches(cluster: FaultyCluster, topics: list[str], findings: Findings) -> None:
    """Write down, beside the brokers' logs, what the partitions hold that something is wrong in."""
    for topic in topics:
        named = re.findall(rf"{topic}-(\d+)", " ".join(findings.examples))
        for number in sorted(set(map(int, named))):
            path = cluster.folder / f"{topic}-{number}.txt"
            path.write_text(cluster.dump_log(topic, number, records=True))
            findings.examples.append(f"the batches of {topic}-{number} are in {path}")


def _expect(pipe: Any, timeout: float) -> Any:
    if not pipe.poll(timeout):
        raise TimeoutError(f"a producer's process says nothing for {timeout:g} s")
    return pipe.recv()


def _report(plan: Plan, findings: Findings, disturber: _Disturber, accounts: list[Account]) -> Report:
    recoveries = []
    for kill in disturber.kills:
        for account in accounts:
            caused = [
                gap.end - kill.at
                for gap in account.gaps
                if (gap.where is None or gap.where in kill.led)
                and gap.begin <= kill.at + _CAUSED_WITHIN_S
                and gap.end > kill.at
            ]
            if caused:
                recoveries.append(max(caused))
    seconds = max((account.seconds for account in accounts), default=0.0)
    return Report(
        plan=plan,
        findings=findings,
        faults=disturber.done,
        kills=len(disturber.kills),
        recoveries=sorted(recoveries),
        gaps_longest=max((gap.end - gap.begin for a in accounts for gap in a.gaps), default=0.0),
        sent=sum(account.sent for account in accounts),
        rate=findings.acknowledged / seconds if seconds else 0.0,
        committed=sum(len(account.committed) for account in accounts),
        aborted=Counter(reason for account in accounts for reason in account.aborted.values()),
        errors=sum((account.errors for account in accounts), Counter()),
        repeated_calls=sum((account.repeated_calls for account in accounts), Counter()),
        new_producers=Counter(reason for account in accounts for reason in account.new_producers),
        crashed=[account.crashed for account in accounts if account.crashed],
    )


def _counted(counts: Counter[str]) -> str:
    if not counts:
        return "0"
    return f"{counts.total()} (" + ", ".join(f"{what} {count}" for what, count in counts.most_common()) + ")"


def _seconds(sorted_values: list[float], quantile: float) -> str:
    if not sorted_values:
        return "none"
    if quantile == 0.5:
        return f"{statistics.median(sorted_values):.2f} s of {len(sorted_values)}"
    return f"{sorted_values[-1]:.2f} s"


def print_reports(reports: Sequence[Report]) -> None:
    """All reports, one after the other, the same lines in each."""
    width = max(len(name) for report in reports for name, _ in report.lines())
    for report in reports:
        plan = report.plan
        what = "transactions" if plan.transactions else "idempotent, no transactions"
        print(
            f"\n{plan.client}: {plan.seconds:g} s, seed {plan.seed}, {plan.producers} producers, "
            f"{plan.rate:,.0f} records/s wanted, {plan.topics} x {plan.partitions} partitions, {what}"
        )
        for name, value in report.lines():
            print(f"  {name:{width}}  {value}")
        for example in report.findings.examples:
            print(f"    {example}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.chaos", description=(__doc__ or "").split("\n\n")[1]
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to produce (default 60)")
    parser.add_argument(
        "--seed", type=int, default=None, help="of the faults; drawn and printed if not given"
    )
    parser.add_argument("--producers", type=int, default=3, help="processes, one producer each (default 3)")
    parser.add_argument(
        "--rate", type=float, default=20_000.0, help="records a second, all producers (20000)"
    )
    parser.add_argument("--transactions", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--faults", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--client", choices=("kprod", "confluent", "both"), default="kprod")
    parser.add_argument("--topics", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=4, help="of each topic")
    parser.add_argument("--quiet", action="store_true", help="do not print each fault")
    parser.add_argument("--json", metavar="FILE", help="write the reports there too")
    given = parser.parse_args(arguments)
    seed = random.randrange(1 << 31) if given.seed is None else given.seed
    print(f"--seed {seed}", flush=True)
    clients = ("kprod", "confluent") if given.client == "both" else (given.client,)
    reports = []
    with chaos_cluster(seed, quiet=given.quiet, long_running=given.seconds > 120) as cluster:
        for client in clients:
            plan = Plan(
                client, given.seconds, seed, given.producers, given.rate, given.transactions, given.faults,
                given.topics, given.partitions,
            )  # fmt: skip
            reports.append(run(cluster, plan))
            print_reports(reports[-1:])
            cluster.keep_logs |= not reports[-1].passed
    if len(reports) > 1:
        print("\n=== side by side ===")
        print_reports(reports)
    if cluster.keep_logs:
        print(f"broker logs kept in {cluster.folder}")
    if given.json:
        with open(given.json, "w") as file:
            # Not by asdict(): it breaks Counters before Python 3.12.
            json.dump(reports, file, indent=2, default=vars)
    return 0 if all(report.passed for report in reports if report.plan.client == "kprod") else 1


if __name__ == "__main__":
    sys.exit(main())
