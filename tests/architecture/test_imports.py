"""Imports run one way: the contracts of pyproject.toml hold, and starting a command does not import the other rooms."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_rooms_import_one_way() -> None:
    checked = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def imported_by(statement: str) -> set[str]:
    """Return the names of the modules that a fresh interpreter holds after `statement`."""
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["contracts.events", "features.state", "pricing.engine", "backtest.replay"])
def test_a_backtest_needs_neither_faust_nor_a_kafka_client(module: str) -> None:
    assert not imported_by(f"import {module}") & {"faust", "mode", "aiokafka", "kafka", "confluent_kafka", "rocksdict"}


def test_the_command_line_imports_no_room_to_print_its_help() -> None:
    assert not imported_by("import pricetide") & {"streams", "backtest", "features", "pricing", "faust"}


def test_every_command_is_installed_and_can_be_imported() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        declared = set(tomllib.load(file)["project"]["entry-points"]["pricetide.commands"])
    installed = {entry.name: entry for entry in entry_points(group="pricetide.commands")}
    assert declared == set(installed), "install again: make setup"
    for name, entry in installed.items():
        command = entry.load()
        assert command.name == name
        assert command.help, f"pricetide {name} says nothing about itself"
