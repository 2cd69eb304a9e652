"""The short form of `make chaos`: a few kills, a freeze, a join and a leave under load, against the oracle."""

from __future__ import annotations

import chaos
import pytest

from features.artifact import write_artifact


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of random weights, which knows most of the generated items."""
    from tests.features.models import DEFAULT, GENERATED, parts

    directory = tmp_path_factory.mktemp("model") / "artifact"
    write_artifact(directory, parts(DEFAULT, 1, GENERATED))
    return directory


@pytest.mark.parametrize(
    ("seed", "modelled", "events"),
    [(1, True, 6_000), (2, False, 8_000)],
    ids=["log in Kafka before, with a model", "log arriving live"],
)
def test_killed_frozen_and_moved_workers_publish_what_the_oracle_wants(kafka, tmp_path, model, seed, modelled, events):
    given = model if modelled else None
    result = chaos.run(seed, kafka, events=events, kills=3, directory=tmp_path / "run", pace_s=4, model=given)
    assert result.failures == []
    assert result.kills == 3
    assert result.prices > 0.75 * events
