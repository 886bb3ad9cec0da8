"""How soon metadata are asked for again."""

from __future__ import annotations

import pytest

from kprod.cluster.node import Backoff
from kprod.engine.metadata import LEADER_AWAY_PAUSE_S, LEADER_AWAY_SOON_S, pause_before_refresh

DEFAULTS = Backoff(0.1, 1.0)


@pytest.mark.parametrize("failures", [1, 2, 5, 50])
def test_an_election_is_noticed_soon_however_long_it_takes(failures: int) -> None:
    for away_for in (0.0, 5.0, LEADER_AWAY_SOON_S - 0.1):
        assert 0.08 <= pause_before_refresh(DEFAULTS, failures, away_for) <= LEADER_AWAY_PAUSE_S


def test_a_leader_that_stays_away_is_asked_for_with_the_back_off() -> None:
    assert pause_before_refresh(DEFAULTS, 50, LEADER_AWAY_SOON_S) >= 0.8


def test_other_failures_back_off() -> None:
    assert pause_before_refresh(DEFAULTS, 50, None) >= 0.8


def test_a_longer_retry_backoff_ms_is_kept_to() -> None:
    patient = Backoff(0.5, 1.0)
    assert 0.4 <= pause_before_refresh(patient, 1, 0.0) <= pause_before_refresh(patient, 9, 5.0) + 0.2
    assert pause_before_refresh(patient, 9, 5.0) == pytest.approx(0.5)
