"""One producer of a chaos run, in a process of its own: sends numbered records, notes what came of them."""

from __future__ import annotations

import random
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.faults.chaos_clients import Advice, Client, Failed, Offsets, call_until_decided, make_client

VALUE = struct.Struct(">BIQ")
"""Which producer, which transaction (0: none), which number: at the head of each value."""

SIZE = 100
_PADDING = bytes(SIZE - VALUE.size)
# Pauses in the acknowledgements that are worth a line in the report.
_GAP_S = 0.25
_GIVE_UP_S = 120.0

Partition = tuple[str, int]

UNDECIDED, ACKNOWLEDGED, FAILED = 0, 1, 2


class Task(NamedTuple):
    """What one producer does."""

    number: int
    client: str
    servers: str
    direct_servers: str
    topics: list[str]
    partitions: int
    rate: float
    seconds: float
    seed: int
    request_timeout_ms: int
    transactional_id: str | None
    input_topic: str

    @property
    def group(self) -> str:
        """The group whose offsets go with the transactions."""
        return f"group-of-{self.transactional_id}"


class Gap(NamedTuple):
    """A time without an acknowledgement, by the monotonic clock; ``where`` None: without a commit."""

    where: Partition | None
    begin: float
    end: float


class Committed(NamedTuple):
    """A transaction that was committed, with the records of the numbers from ``begin`` to before ``end``."""

    transaction: int
    begin: int
    end: int


@dataclass
class Account:
    """What a producer says it did, to be held against what consumers find."""

    number: int
    sent: int = 0
    # Without transactions: what came of each record, by partition and number.
    outcomes: dict[Partition, bytearray] = field(default_factory=dict)
    # With transactions.
    committed: list[Committed] = field(default_factory=list)
    aborted: dict[int, str] = field(default_factory=dict)
    aborted_records: int = 0
    gaps: list[Gap] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    repeated_calls: Counter[str] = field(default_factory=Counter)
    new_producers: list[str] = field(default_factory=list)
    seconds: float = 0.0
    crashed: str = ""


def work(task: Task, pipe: Any) -> None:
    """The body of the process: says "ready", waits for the word, works, sends its :class:`Account`."""
    account = Account(task.number)
    try:
        worker = _TransactionalWorker(task, account) if task.transactional_id else _Worker(task, account)
        pipe.send("ready")
        pipe.recv()
        worker.run()
    except BaseException as error:
        import traceback

        traceback.print_exc()
        account.crashed = repr(error)
    pipe.send(account)


class _Pace:
    """Says how many records are due; what was missed is caught up with."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._began = time.monotonic()
        self.sent = 0

    def due(self) -> int:
        return int((time.monotonic() - self._began) * self._rate) - self.sent


class _Worker:
    def __init__(self, task: Task, account: Account) -> None:
        self.task = task
        self.account = account
        self.random = random.Random(task.seed * 1000 + task.number)
        self.client = self._new_client()

    def _new_client(self) -> Client:
        return make_client(
            self.task.client, self.task.servers, self.task.request_timeout_ms, self.task.transactional_id
        )

    def run(self) -> None:
        task, account = self.task, self.account
        places = [(topic, number) for topic in task.topics for number in range(task.partitions)]
        outcomes = account.outcomes = {place: bytearray() for place in places}
        last = dict.fromkeys(places, time.monotonic())

        def send(place: Partition) -> None:
            of_place = outcomes[place]
            number = len(of_place)

            def decided(error: object) -> None:
                if of_place[number] != UNDECIDED:
                    account.errors["decided twice"] += 1
                if error is not None:
                    of_place[number] = FAILED
                    account.errors[f"record: {type(error).__name__} {_code(error)}"] += 1
                    return
                of_place[number] = ACKNOWLEDGED
                now = time.monotonic()
                if now - last[place] > _GAP_S:
                    account.gaps.append(Gap(place, last[place], now))
                last[place] = now

            of_place.append(UNDECIDED)
            try:
                self.client.send(*place, VALUE.pack(task.number, 0, number) + _PADDING, decided)
            except Failed as failed:
                of_place[number] = FAILED
                account.errors[failed.reason] += 1

        pace = _Pace(task.rate)
        began = time.monotonic()
        while time.monotonic() - began < task.seconds:
            for _ in range(min(pace.due(), 200)):
                send(places[pace.sent % len(places)])
                pace.sent += 1
            self.client.poll()
            if pace.due() < 10:
                time.sleep(0.002)
        account.sent = pace.sent
        call_until_decided(
            self.client.flush, _GIVE_UP_S, lambda reason: account.repeated_calls.update([reason])
        )
        account.seconds = time.monotonic() - began
        self.client.close()


class _TransactionalWorker(_Worker):
    """Transforms the records of a partition of an input topic: number n of the output is made of offset n.

    A transaction is the outputs of some inputs, and the offset of the next input. What was aborted is done
    again.
    """

    def __init__(self, task: Task, account: Account) -> None:
        super().__init__(task, account)
        self._transaction = 0
        self._record_errors: Counter[str] = Counter()
        self._decided(self.client.init)

    def run(self) -> None:
        task, account = self.task, self.account
        pace = _Pace(task.rate)
        began = last_commit = time.monotonic()
        position = 0
        while time.monotonic() - began < task.seconds:
            if pace.due() < 100:
                time.sleep(0.002)
                continue
            count = min(pace.due(), self.random.randint(100, 10_000))
            self._transaction += 1
            pace.sent += count
            attempt = Committed(self._transaction, position, position + count)
            reason = self._attempt(attempt)
            if reason:
                account.aborted[attempt.transaction] = reason
                account.aborted_records += count
                if reason != "on purpose":
                    account.errors[reason] += 1
                continue
            account.committed.append(attempt)
            position += count
            now = time.monotonic()
            if now - last_commit > _GAP_S:
                account.gaps.append(Gap(None, last_commit, now))
            last_commit = now
        account.sent = pace.sent
        account.seconds = time.monotonic() - began
        account.errors.update(self._record_errors)
        self.client.close()

    def _attempt(self, attempt: Committed) -> str:
        """Do a transaction; gives why it was aborted, '' when it was committed."""
        task, client = self.task, self.client
        topics, partitions = task.topics, task.partitions

        def decided(error: object) -> None:
            if error is not None:
                self._record_errors[f"record: {type(error).__name__} {_code(error)}"] += 1

        try:
            client.begin()
            for number in range(attempt.begin, attempt.end):
                place = number % len(topics), number // len(topics) % partitions
                value = VALUE.pack(task.number, attempt.transaction, number) + _PADDING
                client.send(topics[place[0]], place[1], value, decided)
            if self.random.random() < 0.15:
                self._decided(client.abort)
                return "on purpose"
            offsets = Offsets(task.group, task.input_topic, task.number, attempt.end)
            self._decided(lambda timeout: client.offsets(offsets, timeout))
            self._decided(client.commit)
            return ""
        except Failed as failed:
            advice, reason = failed.advice, failed.reason
        if advice is Advice.ABORT:
            try:
                self._decided(client.abort)
                return reason
            except Failed as failed:
                reason = f"{reason}, then {failed.reason}"
        # As applications do that have lost their producer: the group's offset says what was committed.
        self.account.new_producers.append(reason)
        self.client.close()
        self.client = self._new_client()
        self._decided(self.client.init)
        return "" if self._committed_offset() == attempt.end else reason

    def _decided(self, call: Any) -> None:
        call_until_decided(call, _GIVE_UP_S, lambda reason: self.account.repeated_calls.update([reason]))

    def _committed_offset(self) -> int:
        return committed_offset(
            self.task.direct_servers, self.task.group, self.task.input_topic, self.task.number
        )


def committed_offset(servers: str, group: str, topic: str, partition: int) -> int:
    """The offset a group has committed for a partition, as librdkafka tells; 0 when there is none."""
    from confluent_kafka import Consumer, KafkaException, TopicPartition

    consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "log_level": 1})
    deadline = time.monotonic() + 90
    try:
        while True:
            try:
                (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=30)
                return max(0, int(found.offset))
            except KafkaException as error:
                # The group's coordinator may just be moving; librdkafka says so only by the code.
                if time.monotonic() > deadline:
                    raise
                print(f"asking again for the offset of {group}: {error}", flush=True)
                time.sleep(0.2)
    finally:
        consumer.close()


def _code(error: object) -> str:
    name = getattr(error, "name", None)
    return str(name()) if callable(name) else ""
