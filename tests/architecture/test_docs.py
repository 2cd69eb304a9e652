"""The documentation is true: every command and setting is described, every command described exists."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from pricetide import command_line

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = {entry.name: entry for entry in entry_points(group="pricetide.commands")}
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def code_of(page: Path) -> str:
    """Return the fenced blocks and the inline code of a page."""
    text = page.read_text()
    fenced = re.findall(r"```[a-z]*\n(.*?)```", text, flags=re.DOTALL)
    return "\n".join(fenced + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))


def subcommands(name: str) -> list[str]:
    command = command_line.get_command(click.Context(command_line), name)
    return sorted(command.commands) if isinstance(command, click.Group) else []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_operations_describes_every_command(name: str) -> None:
    text = code_of(ROOT / "docs/operations.md")
    assert re.search(rf"\bpricetide {name}\b", text)
    for sub in subcommands(name):
        assert re.search(rf"\bpricetide {name} \S*\b{sub}\b", text), f"pricetide {name} {sub} is not described"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_exists(page: Path) -> None:
    code = code_of(page)
    unknown = {name for name in re.findall(r"(?<![\w./-])pricetide ([a-z][a-z0-9-]*)", code) if name not in COMMANDS}
    missing = {target for target in re.findall(r"(?<![\w./-])make ([a-z][a-z-]*)", code) if target not in TARGETS}
    assert not unknown | missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_into_the_repository_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_readme_shows_the_two_commands_of_a_newcomer() -> None:
    code = code_of(ROOT / "README.md")
    assert "make demo" in code
    assert "make test" in code
