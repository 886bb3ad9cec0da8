"""Holds what producers say they did against what a consumer of another client finds."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.faults.chaos_worker import ACKNOWLEDGED, FAILED, UNDECIDED, VALUE, Account, Partition
from tests.kafka.readers import stream_confluent


@dataclass
class Findings:
    """How many records are not as they must be, with examples. All numbers but the first two must be 0."""

    read: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    undecided: int = 0
    phantom: int = 0
    """Found though they were said not to be written, or never sent."""
    aborted_visible: int = 0
    incomplete_transactions: int = 0
    wrong_offsets: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def problems(self) -> dict[str, int]:
        """What is wrong, and how often."""
        names = (
            "lost", "doubled", "out_of_order", "undecided", "phantom", "aborted_visible",
            "incomplete_transactions", "wrong_offsets",
        )  # fmt: skip
        return {name: count for name in names if (count := getattr(self, name))}

    def example(self, text: str) -> None:
        """Keep the first of them."""
        if len(self.examples) < 20:
            self.examples.append(text)


def check(
    servers: str,
    topics: list[str],
    accounts: list[Account],
    offsets: dict[int, int] | None = None,
) -> Findings:
    """Read all of ``topics``, committed records only, and compare.

    Args:
        servers: brokers, not through the proxies.
        topics: what the producers wrote to.
        accounts: one of each producer.
        offsets: with transactions: the committed offset of each producer's group, by the producer's number.
    """
    findings = Findings()
    by_number = {account.number: account for account in accounts}
    visible: dict[int, bytearray] = {}
    last: dict[tuple[int, Partition], int] = {}
    transactions = {
        account.number: {each.transaction: each for each in account.committed} for account in accounts
    }
    seen: dict[tuple[int, Partition], bytearray] = {}
    for topic in topics:
        for messages in stream_confluent(servers, topic, isolation="read_committed"):
            for message in messages:
                findings.read += 1
                producer, transaction, number = VALUE.unpack_from(message.value())
                place = (topic, message.partition())
                key = (producer, place)
                where = f"producer {producer}, {topic}-{place[1]}, number {number}, offset {message.offset()}"
                if transaction:
                    counts = visible.setdefault(producer, bytearray())
                    committed = transactions[producer].get(transaction)
                    if committed is None or not committed.begin <= number < committed.end:
                        findings.aborted_visible += 1
                        why = by_number[producer].aborted.get(transaction, "not known")
                        findings.example(f"{where}: transaction {transaction} was aborted ({why})")
                        continue
                else:
                    counts = seen.setdefault(key, bytearray())
                    outcomes = by_number[producer].outcomes.get(place, bytearray())
                    if number >= len(outcomes):
                        findings.phantom += 1
                        findings.example(f"{where} was never sent")
                        continue
                if number >= len(counts):
                    counts.extend(bytes(number + 1 - len(counts) + 4096))
                if counts[number]:
                    findings.doubled += 1
                    findings.example(f"{where} is there before")
                    continue
                counts[number] = 1
                if number < last.get(key, -1):
                    findings.out_of_order += 1
                    findings.example(f"{where} comes after {last[key]}")
                else:
                    last[key] = number
    for account in accounts:
        if offsets is None:
            _check_outcomes(account, seen, findings)
        else:
            _check_transactions(account, visible.get(account.number, bytearray()), offsets, findings)
    return findings


def _check_outcomes(
    account: Account, seen: dict[tuple[int, Partition], bytearray], findings: Findings
) -> None:
    for place, outcomes in account.outcomes.items():
        found = seen.get((account.number, place), bytearray())
        findings.acknowledged += outcomes.count(ACKNOWLEDGED)
        findings.undecided += outcomes.count(UNDECIDED)
        if outcomes.count(FAILED) == 0 and found.count(1) == len(outcomes):
            continue
        for number, outcome in enumerate(outcomes):
            if outcome == ACKNOWLEDGED and not (number < len(found) and found[number]):
                findings.lost += 1
                findings.example(
                    f"producer {account.number}, {place}, number {number}: acknowledged, not there"
                )


def _check_transactions(
    account: Account, visible: bytearray, offsets: dict[int, int], findings: Findings
) -> None:
    expected = 0
    for transaction in account.committed:
        wanted = transaction.end - transaction.begin
        found = visible[transaction.begin : transaction.end].count(1)
        findings.acknowledged += wanted
        if transaction.begin != expected:
            findings.wrong_offsets += 1
            findings.example(f"producer {account.number}: {transaction} begins after {expected}")
        expected = transaction.end
        if found != wanted:
            findings.incomplete_transactions += 1
            findings.lost += wanted - found
            findings.example(f"producer {account.number}: {found} of {wanted} records of {transaction}")
    if offsets[account.number] != expected:
        findings.wrong_offsets += 1
        findings.example(
            f"producer {account.number}: outputs up to {expected}, committed offset {offsets[account.number]}"
        )
