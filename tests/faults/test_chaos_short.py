"""The short form of `make chaos`: a few kills, a freeze, a join and a leave under load, against the oracle."""

from __future__ import annotations

import chaos
import pytest


@pytest.mark.parametrize("seed", [1, 2], ids=["log in Kafka before", "log arriving live"])
def test_killed_frozen_and_moved_workers_publish_what_the_oracle_wants(kafka, tmp_path, seed):
    result = chaos.run(seed, kafka, events=8_000, kills=3, directory=tmp_path / "run", pace_s=4)
    assert result.failures == []
    assert result.kills == 3
    assert result.prices > 6_000
