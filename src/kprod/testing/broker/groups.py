"""The group coordinator: classic consumer groups and their offsets.

The protocol is the one before KIP-848: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, the assignment made by
the group's leader. There is no initial delay (``group.initial.rebalance.delay.ms`` is 0).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from kprod.testing.broker.cluster import Scheduler, Timer

ILLEGAL_GENERATION: Final = 22
INCONSISTENT_GROUP_PROTOCOL: Final = 23
UNKNOWN_MEMBER_ID: Final = 25
REBALANCE_IN_PROGRESS: Final = 27
MEMBER_ID_REQUIRED: Final = 79

GroupState = Literal["Empty", "PreparingRebalance", "CompletingRebalance", "Stable"]
Answer = Callable[[dict[str, Any]], None]


@dataclass
class CommittedOffset:
    """What a group has stored for a partition."""

    offset: int
    leader_epoch: int = -1
    metadata: str | None = ""


@dataclass
class Member:
    """One member of a group."""

    id: str
    instance_id: str | None
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: dict[str, bytes]
    assignment: bytes = b""
    answer_join: Answer | None = None
    answer_sync: Answer | None = None
    timer: Timer | None = None


@dataclass
class Group:
    """One consumer group."""

    id: str
    state: GroupState = "Empty"
    generation: int = 0
    protocol_type: str = ""
    protocol: str | None = None
    leader: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    offsets: dict[tuple[str, int], CommittedOffset] = field(default_factory=dict)
    pending: dict[str, dict[tuple[str, int], CommittedOffset]] = field(default_factory=dict)
    """Offsets of open transactions, by transactional id."""
    rebalance_timer: Timer | None = None


class GroupCoordinator:
    """All groups of the cluster."""

    def __init__(self, schedule: Scheduler) -> None:
        self._schedule = schedule
        self.groups: dict[str, Group] = {}
        self._issued: set[str] = set()

    def group(self, group_id: str) -> Group:
        """The group, a new one if there is none."""
        group = self.groups.get(group_id)
        if group is None:
            group = self.groups[group_id] = Group(group_id)
        return group

    # --- offsets ----------------------------------------------------------------------------------------

    def check_commit(self, group_id: str, generation: int, member_id: str) -> int:
        """The error code for an offset commit by somebody who is not a member of this generation, else 0."""
        group = self.group(group_id)
        if generation < 0 and (not member_id or not group.members):
            return 0
        if member_id not in group.members:
            return UNKNOWN_MEMBER_ID
        if generation != group.generation:
            return ILLEGAL_GENERATION
        self._heard_of(group, group.members[member_id])
        return 0

    def commit(self, group_id: str, topic: str, partition: int, offset: CommittedOffset) -> None:
        """Store an offset."""
        self.group(group_id).offsets[topic, partition] = offset

    def commit_in_transaction(
        self, group_id: str, transactional_id: str, topic: str, partition: int, offset: CommittedOffset
    ) -> None:
        """Store an offset that counts when the transaction commits."""
        self.group(group_id).pending.setdefault(transactional_id, {})[topic, partition] = offset

    def end_transaction(self, group_id: str, transactional_id: str, commit: bool) -> None:
        """Make a transaction's offsets count, or drop them."""
        group = self.group(group_id)
        offsets = group.pending.pop(transactional_id, {})
        if commit:
            group.offsets.update(offsets)

    def is_pending(self, group_id: str, topic: str, partition: int) -> bool:
        """Whether an open transaction has an offset for this partition."""
        return any((topic, partition) in offsets for offsets in self.group(group_id).pending.values())

    # --- membership -------------------------------------------------------------------------------------

    def join(self, body: dict[str, Any], version: int, client_id: str | None, answer: Answer) -> None:
        """Handle a JoinGroup request; `answer` gets the body of the response, maybe much later."""
        group = self.group(body["group_id"])
        member_id: str = body["member_id"]
        instance_id: str | None = body["group_instance_id"]
        if not member_id and instance_id is not None:
            # A static member that comes back takes over its old place (KIP-345).
            member_id = next((m.id for m in group.members.values() if m.instance_id == instance_id), "")
        protocols = {p["name"]: p["metadata"] for p in body["protocols"]}
        if member_id and member_id not in group.members and not self._is_issued(member_id):
            answer(_join_error(UNKNOWN_MEMBER_ID, member_id))
            return
        has_others = any(m != member_id for m in group.members)
        if not protocols or (
            has_others
            and (
                body["protocol_type"] != group.protocol_type
                or not set(protocols) & self._common_protocols(group, without=member_id)
            )
        ):
            answer(_join_error(INCONSISTENT_GROUP_PROTOCOL, member_id))
            return
        if not member_id:
            member_id = f"{instance_id or client_id or 'member'}-{uuid.uuid4()}"
            if version >= 4 and instance_id is None:
                # KIP-394: the client joins again with the id it is given here.
                self._issued.add(member_id)
                answer(_join_error(MEMBER_ID_REQUIRED, member_id))
                return
        session_timeout_ms: int = body["session_timeout_ms"]
        rebalance_timeout_ms: int = body["rebalance_timeout_ms"]
        member = group.members.get(member_id)
        if member is None:
            member = Member(member_id, instance_id, session_timeout_ms, rebalance_timeout_ms, protocols)
            group.members[member_id] = member
        member.protocols = protocols
        member.answer_join = answer
        group.protocol_type = body["protocol_type"]
        self._heard_of(group, member)
        if group.state != "PreparingRebalance":
            self._prepare_rebalance(group)
        self._maybe_complete_join(group)

    def _is_issued(self, member_id: str) -> bool:
        """Whether the id was given out with MEMBER_ID_REQUIRED; it counts once."""
        if member_id in self._issued:
            self._issued.discard(member_id)
            return True
        return False

    def _common_protocols(self, group: Group, without: str = "") -> set[str]:
        """Protocols that all members have, not counting the one with id `without`."""
        sets = [set(m.protocols) for m in group.members.values() if m.id != without]
        return set.intersection(*sets) if sets else set()

    def _prepare_rebalance(self, group: Group) -> None:
        for member in group.members.values():
            if member.answer_sync is not None:
                member.answer_sync(_sync_answer(group, REBALANCE_IN_PROGRESS, b""))
                member.answer_sync = None
        group.state = "PreparingRebalance"
        timeout = max((m.rebalance_timeout_ms for m in group.members.values()), default=0)
        if timeout <= 0:
            timeout = max((m.session_timeout_ms for m in group.members.values()), default=0)
        if group.rebalance_timer is not None:
            group.rebalance_timer.cancel()
        group.rebalance_timer = self._schedule(timeout / 1000, lambda: self._rebalance_timed_out(group))

    def _rebalance_timed_out(self, group: Group) -> None:
        if group.state == "PreparingRebalance":
            for member in [m for m in group.members.values() if m.answer_join is None]:
                self._drop(group, member)
            self._maybe_complete_join(group)

    def _maybe_complete_join(self, group: Group) -> None:
        if group.state != "PreparingRebalance" or any(m.answer_join is None for m in group.members.values()):
            return
        if group.rebalance_timer is not None:
            group.rebalance_timer.cancel()
            group.rebalance_timer = None
        if not group.members:
            group.state = "Empty"
            group.generation += 1
            return
        group.generation += 1
        group.state = "CompletingRebalance"
        if group.leader not in group.members:
            group.leader = next(iter(group.members))
        common = self._common_protocols(group)
        preferred = group.members[group.leader].protocols
        group.protocol = next(name for name in preferred if name in common)
        for member in group.members.values():
            answer = member.answer_join
            member.answer_join = None
            if answer is None:
                continue
            members = [
                {
                    "member_id": m.id,
                    "group_instance_id": m.instance_id,
                    "metadata": m.protocols[group.protocol],
                }
                for m in group.members.values()
            ]
            answer(
                {
                    "error_code": 0,
                    "generation_id": group.generation,
                    "protocol_type": group.protocol_type,
                    "protocol_name": group.protocol,
                    "leader": group.leader,
                    "member_id": member.id,
                    "members": members if member.id == group.leader else [],
                }
            )

    def _check_member(self, group: Group, member_id: str, generation: int) -> int:
        if member_id not in group.members:
            return UNKNOWN_MEMBER_ID
        if generation != group.generation:
            return ILLEGAL_GENERATION
        return 0

    def sync(self, body: dict[str, Any], answer: Answer) -> None:
        """Handle a SyncGroup request; `answer` gets the body of the response when the leader has decided."""
        group = self.group(body["group_id"])
        member_id: str = body["member_id"]
        error = self._check_member(group, member_id, body["generation_id"])
        if not error and group.state == "PreparingRebalance":
            error = REBALANCE_IN_PROGRESS
        if error:
            answer(_sync_answer(group, error, b""))
            return
        member = group.members[member_id]
        self._heard_of(group, member)
        if group.state == "Stable":
            answer(_sync_answer(group, 0, member.assignment))
            return
        member.answer_sync = answer
        if member_id != group.leader:
            return
        assignments = {a["member_id"]: a["assignment"] for a in body["assignments"]}
        group.state = "Stable"
        for other in group.members.values():
            other.assignment = assignments.get(other.id, b"")
            if other.answer_sync is not None:
                other.answer_sync(_sync_answer(group, 0, other.assignment))
                other.answer_sync = None

    def heartbeat(self, body: dict[str, Any]) -> int:
        """Handle a Heartbeat request; returns the error code."""
        group = self.group(body["group_id"])
        error = self._check_member(group, body["member_id"], body["generation_id"])
        if error:
            return error
        self._heard_of(group, group.members[body["member_id"]])
        return REBALANCE_IN_PROGRESS if group.state == "PreparingRebalance" else 0

    def leave(self, group_id: str, member_id: str, instance_id: str | None) -> int:
        """Take a member out; returns the error code."""
        group = self.group(group_id)
        member = group.members.get(member_id)
        if member is None and instance_id is not None:
            member = next((m for m in group.members.values() if m.instance_id == instance_id), None)
        if member is None:
            return UNKNOWN_MEMBER_ID
        self._remove(group, member)
        return 0

    def _heard_of(self, group: Group, member: Member) -> None:
        if member.timer is not None:
            member.timer.cancel()
        member.timer = self._schedule(
            member.session_timeout_ms / 1000, lambda: self._session_expired(group, member)
        )

    def _session_expired(self, group: Group, member: Member) -> None:
        # While it waits for others in a join, a member cannot send heartbeats.
        if member.answer_join is None and group.members.get(member.id) is member:
            self._remove(group, member)

    def _drop(self, group: Group, member: Member) -> None:
        group.members.pop(member.id, None)
        if member.timer is not None:
            member.timer.cancel()

    def _remove(self, group: Group, member: Member) -> None:
        self._drop(group, member)
        if group.state in ("Stable", "CompletingRebalance"):
            self._prepare_rebalance(group)
        self._maybe_complete_join(group)


def _join_error(error: int, member_id: str) -> dict[str, Any]:
    return {
        "error_code": error,
        "generation_id": -1,
        "protocol_type": None,
        "protocol_name": "",
        "leader": "",
        "member_id": member_id,
        "members": [],
    }


def _sync_answer(group: Group, error: int, assignment: bytes) -> dict[str, Any]:
    return {
        "error_code": error,
        "protocol_type": group.protocol_type,
        "protocol_name": group.protocol,
        "assignment": assignment,
    }
