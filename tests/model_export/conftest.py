"""What the tests of this room share: a small generated log, and a model trained on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtest.shoppers import generate_log
from contracts.log import open_log
from contracts.semantics import Topology
from tests.once import once


@pytest.fixture(scope="session")
def shop_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 60 generated shoppers and 1,500 events on two partitions."""
    directory = tmp_path_factory.mktemp("shop") / "log"
    generate_log(directory, users=60, events=1_500, seed=5, topology=Topology(partitions=2), file_format="jsonl")
    open_log(directory)
    return directory


@pytest.fixture(scope="session")
def trained_run(shop_log: Path) -> Path:
    """A finished run of two epochs on it."""
    pytest.importorskip("torch", reason="needs the extra model-export")
    from model_export.training import Options
    from model_export.training_run import Work, train_run

    def make(folder: Path) -> Path:
        train_run(folder / "run", Work(shop_log, None, 0.2, None), Options(epochs=2, negatives=32, seed=4))
        return folder / "run"

    return once("trained-run", make)


@pytest.fixture(scope="session")
def trained_artifact(trained_run: Path) -> Path:
    """The artifact of that run."""
    from model_export.runs import export_run

    def make(folder: Path) -> Path:
        export_run(trained_run, folder / "artifact")
        return folder / "artifact"

    return once("trained-artifact", make)
