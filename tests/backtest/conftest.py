"""What the tests of this room share: small generated logs, and one backtest of the public log per session."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from backtest.rees46 import Imported, import_rees46
from backtest.run import run_backtest
from backtest.shoppers import generate_log
from backtest.summary import Summary
from contracts.semantics import Topology


class Backtested(NamedTuple):
    """A backtest of the public log."""

    log: Path
    imported: Imported
    prices: Path
    decisions: Path
    dead_letters: Path
    summary: Summary


@pytest.fixture(scope="session")
def rees46_backtest(rees46: Path, tmp_path_factory: pytest.TempPathFactory) -> Backtested:
    """The public log, imported on 4 partitions and replayed with all outputs."""
    folder = tmp_path_factory.mktemp("rees46")
    imported = import_rees46(rees46, folder / "log", Topology(partitions=4))
    files = folder / "prices.parquet", folder / "decisions.parquet", folder / "dead.jsonl"
    return Backtested(folder / "log", imported, *files, run_backtest(folder / "log", *files))


@pytest.fixture(scope="session")
def shop_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated log of 3,000 events on 3 partitions."""
    directory = tmp_path_factory.mktemp("shop") / "log"
    generate_log(directory, users=150, events=3_000, seed=5, topology=Topology(partitions=3), file_format="jsonl")
    return directory
