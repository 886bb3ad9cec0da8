"""Which versions of which API each Kafka release has, so that the mock cluster can pass for an older one."""

from __future__ import annotations

from typing import Final

from kprod.protocol import APIS

ApiVersionRanges = dict[int, tuple[int, int]]

DEFAULT_RELEASE: Final = "4.1"

# Highest version of each API in Kafka 2.1, then what later releases raised: as brokers of these releases
# answer to ApiVersions. AddPartitionsToTxn 4 and 5 are for brokers only, so it ends at 3.
_FIRST_RELEASE: Final[dict[str, int]] = {
    "Produce": 7,
    "Fetch": 10,
    "ListOffsets": 4,
    "Metadata": 7,
    "OffsetCommit": 6,
    "OffsetFetch": 5,
    "FindCoordinator": 2,
    "JoinGroup": 3,
    "Heartbeat": 2,
    "LeaveGroup": 2,
    "SyncGroup": 2,
    "SaslHandshake": 1,
    "ApiVersions": 2,
    "CreateTopics": 3,
    "DeleteTopics": 3,
    "InitProducerId": 1,
    "OffsetForLeaderEpoch": 2,
    "AddPartitionsToTxn": 1,
    "AddOffsetsToTxn": 1,
    "EndTxn": 1,
    "TxnOffsetCommit": 2,
    "DescribeConfigs": 2,
    "SaslAuthenticate": 0,
    "CreatePartitions": 1,
}

_RAISED_IN: Final[dict[str, dict[str, int]]] = {
    "2.1": {},
    "2.2": {"ListOffsets": 5, "JoinGroup": 4, "SaslAuthenticate": 1},
    "2.3": {
        "Fetch": 11,
        "Metadata": 8,
        "OffsetCommit": 7,
        "JoinGroup": 5,
        "Heartbeat": 3,
        "SyncGroup": 3,
        "OffsetForLeaderEpoch": 3,
    },
    "2.4": {
        "Produce": 8,
        "Metadata": 9,
        "OffsetCommit": 8,
        "OffsetFetch": 6,
        "FindCoordinator": 3,
        "JoinGroup": 6,
        "Heartbeat": 4,
        "LeaveGroup": 4,
        "SyncGroup": 4,
        "ApiVersions": 3,
        "CreateTopics": 5,
        "DeleteTopics": 4,
        "InitProducerId": 2,
    },
    "2.5": {
        "OffsetFetch": 7,
        "JoinGroup": 7,
        "SyncGroup": 5,
        "InitProducerId": 3,
        "TxnOffsetCommit": 3,
        "SaslAuthenticate": 2,
        "CreatePartitions": 2,
    },
    "2.6": {"DescribeConfigs": 3},
    "2.7": {
        "Fetch": 12,
        "CreateTopics": 6,
        "DeleteTopics": 5,
        "InitProducerId": 4,
        "AddPartitionsToTxn": 2,
        "AddOffsetsToTxn": 2,
        "EndTxn": 2,
        "CreatePartitions": 3,
    },
    "2.8": {
        "Produce": 9,
        "ListOffsets": 6,
        "Metadata": 11,
        "CreateTopics": 7,
        "DeleteTopics": 6,
        "OffsetForLeaderEpoch": 4,
        "AddPartitionsToTxn": 3,
        "AddOffsetsToTxn": 3,
        "EndTxn": 3,
        "DescribeConfigs": 4,
        "DescribeCluster": 0,
    },
    "3.0": {"ListOffsets": 7, "OffsetFetch": 8, "FindCoordinator": 4},
    "3.1": {"Fetch": 13, "Metadata": 12},
    "3.2": {"JoinGroup": 9, "LeaveGroup": 5},
    "3.3": {},
    "3.4": {},
    "3.5": {"Fetch": 15, "ListOffsets": 8},
    "3.6": {},
    "3.7": {"Produce": 10, "Fetch": 16, "OffsetCommit": 9, "OffsetFetch": 9, "DescribeCluster": 1},
    "3.8": {
        "Produce": 11,
        "FindCoordinator": 5,
        "InitProducerId": 5,
        "AddOffsetsToTxn": 4,
        "EndTxn": 4,
        "TxnOffsetCommit": 4,
    },
    "3.9": {"Fetch": 17, "ListOffsets": 9, "FindCoordinator": 6, "ApiVersions": 4},
    "4.0": {
        "Produce": 12,
        "ListOffsets": 10,
        "Metadata": 13,
        "EndTxn": 5,
        "TxnOffsetCommit": 5,
        "DescribeCluster": 2,
    },
    "4.1": {"Produce": 13, "Fetch": 18},
}

RELEASES: Final = tuple(_RAISED_IN)
"""Releases that a cluster can pass for, oldest first."""

_KEY_BY_NAME = {api.name: api.key for api in APIS.values()}


def release_number(release: str) -> tuple[int, int]:
    """('3.10' -> (3, 10)), for comparisons."""
    major, minor = release.split(".")
    return int(major), int(minor)


def api_versions_of(release: str) -> ApiVersionRanges:
    """The (lowest, highest) version of each API by key that a broker of `release` advertises.

    The lowest is what this package describes, and 0 for Produce: brokers advertise it for the sake of old
    librdkafka versions although they refuse versions 0 to 2 (KAFKA-18659).

    Raises:
        ValueError: the release is not in :data:`RELEASES`.
    """
    if release not in _RAISED_IN:
        raise ValueError(f"release {release!r} is not known; known are {', '.join(RELEASES)}")
    highest = dict(_FIRST_RELEASE)
    for name in RELEASES[: RELEASES.index(release) + 1]:
        highest.update(_RAISED_IN[name])
    ranges = {}
    for name, version in highest.items():
        key = _KEY_BY_NAME[name]
        lowest = 0 if name == "Produce" else APIS[key].versions[0]
        ranges[key] = (lowest, version)
    return ranges
