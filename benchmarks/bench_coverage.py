"""Whether intervals and verdicts of an off-policy evaluation keep their promise: `python -m benchmarks coverage`.

Simulated logs with a known truth (benchmarks.known_logs), half of them of policies that learn. No setting was chosen on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from backtest.estimates import Evaluation, Interval, Settings
from backtest.evaluation import evaluate, lift_over
from benchmarks.known_logs import Kind, Known, kinds
from benchmarks.lab import Lab
from benchmarks.report import Cell, Claim, Report

LOGS = 80
DRAWS = 5_000
SEED = 1_000
LOOKS = 5
"""At each growing log, evenly spaced."""
SURE = 4.0
"""True standard errors from zero at which a verdict has to come, and be right."""
SETTINGS = Settings(resamples=500)


class Judged(NamedTuple):
    """A log, what was found, and whether the anytime-valid interval of the lift ever missed at LOOKS looks."""

    known: Known
    found: Evaluation
    missed: bool


def run(lab: Lab) -> Report:
    """Judge every family; see the module."""
    logs, draws = (6, 1_500) if lab.quick else (LOGS, DRAWS)
    families = {
        kind: [_judged(known) for known in kind.make(SEED + number, logs)] for number, kind in enumerate(kinds(draws))
    }
    rows = [_row(kind.name, judged) for kind, judged in families.items()]
    every = [one for judged in families.values() for one in judged]
    rows.append(_row("all", every))
    return Report(
        name="coverage",
        title=f"{len(every)} simulated logs of {draws:,} draws or more: 95 % intervals that hold the truth, %, and right verdicts",
        columns=(
            "", "logs", "refused", "lift", "anytime", f"{LOOKS} looks", "value", "anytime", f"{SURE:g}+ errors", "right",
        ),
        rows=rows,
        claims=_claims(families),
        notes=[
            "lift, value (SNIPS): the bootstrap over users; anytime: the anytime-valid interval, of the lift also at "
            f"{LOOKS} looks at the growing log. Coverage is over the logs that pass the gates. right: of logs that pass, "
            f"verdicts where the true lift is at least {SURE:g} true standard errors from zero; INCONCLUSIVE is wrong there. "
            f"Over all logs, refused ones too, lifts are covered in {_all(every, _bootstrap):.1f} % (users resampled) and "
            f"{_all(every, _anytime):.1f} % (anytime-valid). Logs with rates about 1 % have twice the draws.",
        ],
    )  # fmt: skip


def _judged(known: Known) -> Judged:
    n = len(known.feedback)
    settings = Settings(resamples=2, planned=n)
    missed = False
    for look in range(1, LOOKS + 1):
        seen = np.arange(n) < n * look // LOOKS
        part = known.feedback.where(seen)
        lift = lift_over(part, part.propensity, settings)
        missed |= lift is not None and not _within(lift.anytime, float(known.lifts[seen].mean()))
    return Judged(known, evaluate(known.feedback, SETTINGS), missed)


def _within(interval: Interval | None, value: float) -> bool:
    return interval is not None and interval.low <= value <= interval.high


def _bootstrap(one: Judged) -> bool:
    return one.found.lift is not None and _within(one.found.lift.bootstrap, one.known.lift)


def _anytime(one: Judged) -> bool:
    return one.found.lift is not None and _within(one.found.lift.anytime, one.known.lift)


def _snips(one: Judged, which: str) -> bool:
    (snips,) = (each for each in one.found.estimates if each.name == "snips")
    return _within(getattr(snips, which), one.known.value)


def _right(one: Judged) -> bool:
    return one.found.verdict == ("ADOPT_TO_AB" if one.known.lift > 0.0 else "REJECT")


def _all(judged: Sequence[Judged], held: Callable[[Judged], bool]) -> float:
    return 100.0 * float(np.mean([held(one) for one in judged])) if judged else float("nan")


def _passing(judged: Sequence[Judged]) -> list[Judged]:
    return [one for one in judged if one.found.verdict != "REFUSE"]


def _sure(judged: Sequence[Judged]) -> list[Judged]:
    return [one for one in _passing(judged) if abs(one.known.lift) >= SURE * one.known.error]


def _row(name: str, judged: Sequence[Judged]) -> tuple[Cell, ...]:
    passing, sure = _passing(judged), _sure(judged)
    held = (
        _bootstrap, _anytime, lambda one: not one.missed, lambda one: _snips(one, "interval"), lambda one: _snips(one, "anytime"),
    )  # fmt: skip
    covered = [round(_all(passing, each), 1) if passing else None for each in held]
    right = round(_all(sure, _right), 1) if sure else None
    return (name, len(judged), len(judged) - len(passing), *covered, len(sure), right)


def _claims(families: dict[Kind, list[Judged]]) -> list[Claim]:
    every = [one for judged in families.values() for one in judged]
    learning = [one for kind, judged in families.items() if kind.adaptive for one in judged]
    fixed = [one for kind, judged in families.items() if not kind.adaptive for one in judged]
    rows = (
        ("Lifts covered where the policy is fixed, users resampled", _all(_passing(fixed), _bootstrap), 93.0),
        ("Lifts covered where the policy learns, anytime-valid", _all(_passing(learning), _anytime), 93.0),
        (f"and at each of {LOOKS} looks", _all(_passing(learning), lambda one: not one.missed), 93.0),
        (f"Right verdicts on lifts of {SURE:g} standard errors or more", _all(_sure(every), _right), 95.0),
    )
    return [Claim(what=w, measured=m, limit=x, unit="%", at_least=True) for w, m, x in rows]
