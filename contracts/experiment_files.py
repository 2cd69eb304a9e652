"""An experiment as a person writes it: TOML with the fields of contracts.experiments.Experiment, but for its number, which
publishing gives; `start` and `stop` may be dates with a time zone in place of `start_ms` and `stop_ms`. Not here: what is said of
a mistake (contracts.authored), publishing (streams.experiment_changes).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from contracts.authored import Draft, Form, content_of, convert, read_draft
from contracts.experiments import Experiment

_DATES = {"start": "start_ms", "stop": "stop_ms"}
_FORM = Form(
    of=Experiment,
    what="an experiment",
    given={"record": "experiment", "number": 1},
    why_given="remove it: `pricetide experiment apply` gives the next number of the name",
    also=tuple(_DATES),
)


def read_experiment(file: Path) -> Experiment:
    """Return the experiment in `file`, with number 1 in the place of the one that publishing gives.

    Raises:
        BadInput: it cannot be read, or is no experiment; one sentence with file, line, what is wrong and what to do.
    """
    return _experiment_of(read_draft(file, _FORM.what))


def decode_experiment_file(text: str, source: str) -> Experiment:
    """Return the experiment in the TOML `text`; `source` names it in errors. Raises as `read_experiment`."""
    return _experiment_of(Draft(text, source))


def _experiment_of(draft: Draft) -> Experiment:
    content = content_of(draft, _FORM)
    for name, field in _DATES.items():
        if name in content:
            content[field] = _milliseconds(content.pop(name), draft, name)
    return convert(draft, content, _FORM)


def _milliseconds(value: Any, draft: Draft, name: str) -> int:  # noqa: ANN401 - whatever TOML holds
    if not isinstance(value, datetime) or value.tzinfo is None:
        what = f"{name} must be a date with time and zone, as in 2026-11-22T09:00:00Z"
        raise draft.refused((name,), what, f"correct it, or write {name}_ms")
    return round(value.timestamp() * 1000)
