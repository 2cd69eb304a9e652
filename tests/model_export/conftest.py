"""What the tests of this room share: a small generated log, and a model trained on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backtest.shoppers import generate_log
from contracts.log import open_log
from contracts.semantics import Topology


@pytest.fixture(scope="session")
def shop_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 60 generated shoppers and 1,500 events on two partitions."""
    directory = tmp_path_factory.mktemp("shop") / "log"
    generate_log(directory, users=60, events=1_500, seed=5, topology=Topology(partitions=2), file_format="jsonl")
    open_log(directory)
    return directory


@pytest.fixture(scope="session")
def trained_run(shop_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two epochs on it."""
    pytest.importorskip("torch", reason="needs the extra model-export")
    from model_export.training import Options
    from model_export.training_run import Work, train_run

    directory = tmp_path_factory.mktemp("runs") / "run"
    train_run(directory, Work(shop_log, None, 0.2, None), Options(epochs=2, negatives=32, seed=4))
    return directory


@pytest.fixture(scope="session")
def trained_artifact(trained_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of that run."""
    from model_export.runs import export_run

    directory = tmp_path_factory.mktemp("artifacts") / "artifact"
    export_run(trained_run, directory)
    return directory
