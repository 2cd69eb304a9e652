"""What the tests of this room share: small generated logs, and one backtest of the public log per session."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backtest.estimates import Settings
from backtest.rees46 import Imported, import_rees46
from backtest.report.figures import Figures
from backtest.report.study import Ask, Files, files_of, write_report
from backtest.run import run_backtest
from backtest.shoppers import generate_log
from backtest.summary import Summary
from backtest.what_if import Wanted
from contracts.semantics import Topology
from tests.backtest.report_shop import write_report_shop
from tests.once import once


class Backtested(NamedTuple):
    """A backtest of the public log."""

    log: Path
    imported: Imported
    prices: Path
    decisions: Path
    dead_letters: Path
    summary: Summary


@pytest.fixture(scope="session")
def rees46_backtest(rees46: Path) -> Backtested:
    """The public log, imported on 4 partitions and replayed with all outputs."""

    def make(folder: Path) -> tuple[Any, ...]:  # no class of a conftest can be pickled: many modules have that name
        imported = import_rees46(rees46, folder / "log", Topology(partitions=4))
        files = folder / "prices.parquet", folder / "decisions.parquet", folder / "dead.jsonl"
        return folder / "log", imported, *files, run_backtest(folder / "log", *files)

    return Backtested(*once("rees46", make))


@pytest.fixture(scope="session")
def shop_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated log of 3,000 events on 3 partitions."""
    directory = tmp_path_factory.mktemp("shop") / "log"
    generate_log(directory, users=150, events=3_000, seed=5, topology=Topology(partitions=3), file_format="jsonl")
    return directory


class Reported(NamedTuple):
    """A report on a generated shop whose offers were shown."""

    log: Path
    files: Files
    figures: Figures


POLICIES = {
    "gentle": "[rule]\nkind = 'session_intent'\ndiscounts_permille = [50, 50, 0, 0]\nexplore = 0.4\n",
    "deep": "[rule]\nkind = 'fixed_price'\nmultiplier_permille = 850\nexplore = 0.05\n",
}
RAILS = "[rails]\ncharm_endings = []\nstep_max_permille = 300\n"


def write_policies(directory: Path) -> list[Path]:
    """Write the policies that reports in tests are asked about."""
    files = []
    for name, rule in POLICIES.items():
        files.append(directory / f"{name}.toml")
        files[-1].write_text(f"name = '{name}'\nseed = 11\n{rule}{RAILS}")
    return files


@pytest.fixture(scope="session")
def reported() -> Reported:
    """A report on 450 shoppers, whose log prices below list with much exploration, and on two policies."""

    def make(folder: Path) -> tuple[Any, ...]:
        write_report_shop(folder / "log", users=450)
        page = folder / "out.html"
        ask = Ask(Wanted(directory=folder / "log"), write_policies(folder), Settings(resamples=200))
        return folder / "log", files_of(page), write_report(ask, page)

    return Reported(*once("report", make))
