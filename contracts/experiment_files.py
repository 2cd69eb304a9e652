"""An experiment as a person writes it: TOML with the fields of contracts.experiments.Experiment, but for its number, which
publishing gives; `start` and `stop` may be dates with a time zone in place of `start_ms` and `stop_ms`. Not here: publishing
(streams.experiment_changes).
"""

from __future__ import annotations

import re
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from contracts.errors import BadInput
from contracts.experiments import Experiment
from contracts.policy_files import line_of

_NOT_GIVEN = ("record", "number")
_DATES = {"start": "start_ms", "stop": "stop_ms"}


def read_experiment(file: Path) -> Experiment:
    """Return the experiment in `file`, with number 1 in the place of the one that publishing gives.

    Raises:
        BadInput: it cannot be read, or is no experiment; one sentence with file, line, what is wrong and what to do.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(f"{file} cannot be read: {reason}; name a TOML file with an experiment") from None
    return decode_experiment_file(text, str(file))


def decode_experiment_file(text: str, source: str) -> Experiment:
    """Return the experiment in the TOML `text`; `source` names it in errors. Raises as `read_experiment`."""
    try:
        content = tomllib.loads(text)
    except ValueError as error:
        raise BadInput(f"{source} is not TOML for an experiment: {error}; correct it") from None
    for name in _NOT_GIVEN:
        if name in content:
            remedy = "remove it: `pricetide experiment apply` gives the next number of the name"
            raise _refused(source, text, name, f"{name} is not for the file; {remedy}")
    for name, field in _DATES.items():
        if name in content:
            content[field] = _milliseconds(content.pop(name), source, text, name)
    try:
        return msgspec.convert(content | {"record": "experiment", "number": 1}, Experiment)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        place = place.strip(".`")
        unknown = re.search(r"unknown field `([^`]*)`", what)
        path = place if unknown is None else f"{place}.{unknown[1]}".lstrip(".")
        raise _refused(source, text, path, f"{f'{place}: ' if place else ''}{what}; correct it") from None


def _milliseconds(value: Any, source: str, text: str, name: str) -> int:  # noqa: ANN401 - whatever TOML holds
    if not isinstance(value, datetime) or value.tzinfo is None:
        what = f"{name} must be a date with time and zone, as in 2026-11-22T09:00:00Z; correct it, or write {name}_ms"
        raise _refused(source, text, name, what)
    return round(value.timestamp() * 1000)


def _refused(source: str, text: str, path: str, sentence: str) -> BadInput:
    number = line_of(text, tuple(path.split("."))) if path else None
    return BadInput(f"{source}{'' if number is None else f', line {number}'}: {sentence}")
