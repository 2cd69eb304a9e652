"""Style that ruff cannot check, as tests: sizes, docstrings, types, leftovers. A reviewer need not look for these."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("contracts", "features", "pricing", "streams", "backtest", "model_export", "benchmarks", "tests")
TYPED = ("contracts", "features", "pricing", "streams", "backtest", "model_export")
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
LEFTOVERS = re.compile(r"\b(?:FIX" + r"ME|TO" + r"DO|XX" + r"X|HA" + r"CK)\b")
NOT_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(rooms: tuple[str, ...] = ROOMS) -> list[Path]:
    """Return every Python file of `rooms`, and the command line itself."""
    return [ROOT / "pricetide.py", *sorted(file for room in rooms for file in (ROOT / room).rglob("*.py"))]


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def lines_without_docstring(node: Function) -> int:
    """Count as a reader does: the contract in the docstring is not length."""
    first = node.body[0]
    documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def each(rooms: tuple[str, ...] = ROOMS) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("file", modules(rooms), ids=lambda file: str(file.relative_to(ROOT)))


@each()
def test_a_module_is_short_enough_to_read(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MODULE_LINES_MAX


@each()
def test_a_function_fits_on_a_screen(file: Path) -> None:
    long = {
        node.name: lines_without_docstring(node)
        for node in functions(ast.parse(file.read_text()))
        if lines_without_docstring(node) > FUNCTION_LINES_MAX
    }
    assert not long


@each()
def test_a_module_says_what_it_is(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text())), f"{file.name} has no module docstring"


@each()
def test_nothing_is_left_over(file: Path) -> None:
    left = [number for number, line in enumerate(file.read_text().splitlines(), 1) if LEFTOVERS.search(line)]
    assert not left, f"finish or remove: lines {left}"


@each(TYPED)
def test_every_parameter_and_result_is_typed(file: Path) -> None:
    untyped = []
    for node in functions(ast.parse(file.read_text())):
        given = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        bare = [
            argument.arg for argument in given if argument.annotation is None and argument.arg not in {"self", "cls"}
        ]
        if bare or node.returns is None:
            untyped.append(f"{node.name}({', '.join(bare)})")
    assert not untyped


@each(TYPED)
def test_an_exemption_from_the_type_checker_or_linter_says_why(file: Path) -> None:
    silent = [
        number
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if re.search(r"#\s*type:\s*ignore\[[\w, -]+\]\s*$|#\s*type:\s*ignore\s*$|#\s*noqa(?::[ \w,]+)?\s*$", line)
    ]
    assert not silent, f"name the rule and give the reason behind the exemption: lines {silent}"


def test_names_are_words_of_the_field() -> None:
    assert not [file for file in modules() if NOT_NAMES & {file.stem, *file.relative_to(ROOT).parts}]
