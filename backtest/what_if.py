"""A log replayed as its own policies had it, and once more under each of some other policies: what they would have published.

A what-if goes by the logged events, which came of other prices: it shows prices, rails and dispersion, and never what anybody
would have bought. What a policy would earn is estimated off-policy, from the logged draws (backtest.logged_draws).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from math import inf
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from backtest.replay import Order
from backtest.run import Progress, run_backtest
from backtest.summary import Summary
from contracts.errors import BadInput
from contracts.events import TIME_MAX_MS
from contracts.policies import Policy
from contracts.policy_files import read_policy


class Wanted(Struct, frozen=True, kw_only=True):
    """What somebody wants of a log; as run_backtest has it."""

    directory: Path
    prices: Path | None = None
    decisions: Path | None = None
    outcomes: Path | None = None
    shadow_decisions: Path | None = None
    dead_letters: Path | None = None
    draws: Path | None = None
    as_of: float = inf
    order: Order = "merged"
    processes: int = 1
    resume: Path | None = None
    memory: int = 1_024
    """MiB."""
    batch: int = 2_048
    models: tuple[Path, ...] = ()


class Backtested(Struct, frozen=True, kw_only=True):
    """What came out."""

    logged: Summary
    what_ifs: dict[str, Summary]
    """By the names of the policies."""


def backtest_all(
    wanted: Wanted, files: Sequence[Path], progress: Progress = lambda done, total: None, keep: bool = False
) -> Backtested:
    """Replay the log as logged, and under the policy of each of `files`; with `keep`, `forget` must follow.

    Raises:
        BadInput, BadSettings: as of run_backtest and read_policy; or two policies have one name.
    """
    policies = [read_policy(file) for file in files]
    for file, policy in zip(files, policies, strict=True):
        if [one.name for one in policies].count(policy.name) > 1:
            raise BadInput(f"{file}: another of the policies is named {policy.name}, too: give each its own name")
    kept, runs = _Kept(wanted, policies), 1 + len(policies)

    def told(before: int) -> Progress:
        return lambda done, total: progress(before * total + done, runs * total)

    logged = kept.summary("logged", partial(_logged, wanted, policies, told(0)))
    what_ifs = {
        policy.name: kept.summary(f"what-if-{policy.name}", partial(_what_if, wanted, policy, told(place)))
        for place, policy in enumerate(policies, 1)
    }
    if not keep:
        forget(wanted)
    return Backtested(logged=logged, what_ifs=what_ifs)


def forget(wanted: Wanted) -> None:
    """Remove what a resumable backtest has kept, which is done."""
    if wanted.resume is not None:
        for file in wanted.resume.glob("*.json"):
            file.unlink()
        wanted.resume.rmdir()


def _logged(wanted: Wanted, policies: Sequence[Policy], progress: Progress, resume: Path | None) -> Summary:
    return run_backtest(
        wanted.directory, wanted.prices, wanted.decisions, wanted.dead_letters, wanted.batch, progress, wanted.models,
        wanted.outcomes, shadow_decisions=wanted.shadow_decisions, draws=wanted.draws,
        targets=policies if wanted.draws else (), order=wanted.order,
        as_of=wanted.as_of, processes=wanted.processes, resume=resume, states_bytes=wanted.memory << 20,
    )  # fmt: skip


def _what_if(wanted: Wanted, policy: Policy, progress: Progress, resume: Path | None) -> Summary:
    prices, decisions, dead = (
        path and path.with_name(f"{path.stem}.what-if-{policy.name}{path.suffix}")
        for path in (wanted.prices, wanted.decisions, wanted.dead_letters)
    )
    return run_backtest(
        wanted.directory, prices, decisions, dead, wanted.batch, progress, wanted.models, what_if=policy,
        order=wanted.order, as_of=wanted.as_of, processes=wanted.processes, resume=resume,
        states_bytes=wanted.memory << 20, verify=False,
    )  # fmt: skip


class _Kept:
    """The summaries that an earlier run of a resumable backtest came to."""

    def __init__(self, wanted: Wanted, policies: Sequence[Policy]) -> None:
        self._directory = wanted.resume
        same = replace(wanted, resume=None, processes=1, memory=0, batch=0)
        self._of = msgspec.json.encode([same, policies], enc_hook=str).decode()

    def summary(self, name: str, replay: Callable[[Path | None], Summary]) -> Summary:
        """Return what came of the replay `name`, or what `replay` comes to now."""
        if self._directory is None:
            return replay(None)
        file = self._directory / f"{name}.json"
        if file.exists():
            of, summary = msgspec.json.decode(file.read_bytes(), type=tuple[str, Summary])
            if of != self._of:
                raise BadInput(
                    f"{file} is of another backtest: name another directory for --resume, or remove this one"
                )
            return summary
        summary = replay(self._directory / name)
        file.write_bytes(msgspec.json.encode((self._of, summary)))
        return summary


def time_of(text: str) -> float:
    """Return the time that `text` names in ms: ISO 8601, in UTC where it says no zone, or ms as they are.

    Raises:
        BadInput: it is neither, or later than any event can be.
    """
    try:
        ms = float(text) if text.isdecimal() else _utc(datetime.fromisoformat(text)).timestamp() * 1000
    except ValueError:
        raise BadInput(f"{text!r} is no time: write it like 2019-11-01T06:00:00, or in milliseconds") from None
    if ms > TIME_MAX_MS:
        raise BadInput(f"{text} is after the year 2099, as no event can be: write milliseconds since 1970, or ISO 8601")
    return ms


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
