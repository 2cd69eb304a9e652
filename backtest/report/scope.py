"""What a report says about itself: the log, what it can and cannot tell, what is estimated, versions, seed, files.

Not here: figures of policies (prices, values) and of models (quality).
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from backtest.confidence_sequences import when_it_holds
from backtest.estimates import ESTIMAND, Settings
from backtest.learning import known_by
from backtest.logged_draws import DrawsHead
from backtest.report.draws import Draws
from backtest.report.facts import Codes, Floats
from backtest.report.figures import PROVED, Figures
from backtest.summary import Summary
from backtest.what_if import Wanted
from contracts.log import MANIFEST, Log, sha256_of
from contracts.policies import Policy
from features.artifact import MANIFEST as ARTIFACT_MANIFEST
from features.artifact import Artifact

NOT_SHOWN = (
    "no logged propensities: the log says offers: not_shown, so what users did was done under other prices than "
    "this engine's, and no draw of it was ever seen"
)
NO_DRAWS = "no draws that a user saw and whose outcome the log knows"
_RECORDED = "Foretold in the order in which workers applied this log, each model from the first event on, whichever was in force."
_CAN_NOT_SHOWN = (
    "This log gives price paths, rails, dispersion, parity and, with a model, prediction quality.",
    "It gives no value and no lift: nobody answered to these prices. A log with `offers: shown`, in which the "
    "engine's draws have propensities and outcomes, would.",
)
_CAN_SHOWN = (
    "A price that nobody saw is never rewarded: the policies are judged on the logged draws alone, each weighted "
    "by how likely the policy would have drawn that very price in that very state.",
    "How users, seeing other prices, would have come back, browsed or told friends is not in it: that takes an A/B "
    "test.",
    "Prices, rails and parity below are of a replay under the policy, with the events as they were recorded.",
)
_LEARNS = "What a policy had learned changed between these draws, so they depend on earlier rewards: "
_GROWS = "The log is judged as it grows: "
_PACKAGES = ("pricetide", "numpy", "pyarrow", "scipy", "scikit-learn", "matplotlib", "jinja2", "onnxruntime-gpu")
_DAY_MS = 86_400_000


def describe_page(
    figures: Figures,
    log: Log,
    policies: Sequence[str],
    files: Any,  # noqa: ANN401 - of study
    as_of: float = inf,
) -> None:
    """Add title, lead and footer, and the names of the files."""
    manifest = log.manifest
    title = "Backtest: " + (", ".join(policies) if policies else "the log as it was")
    figures.add("page", "title", unit="text", text=title)
    lead = f"{manifest.source.rstrip('.')}. {_time(manifest.first_ms)} to {_time(manifest.last_ms)}, offers {manifest.offers}."
    if as_of < inf:
        lead += f" Only what was known by {_time(int(as_of))}."
    figures.add("page", "lead", unit="text", text=lead)
    figures.add("page", "footer", unit="text", text="Made by pricetide. The page loads nothing and runs no script.")
    describe_files(figures, "figures", files.figures_parquet)
    describe_files(figures, "figures, as JSON", files.figures_json)
    describe_files(figures, "decisions", files.decisions)


def nothing_decided(log: Log, as_of: float) -> str:
    """Return why there is nothing to report, and what to name instead: of a log without a decision, or none by then."""
    if as_of == inf:
        return f"{log.directory} leads to no price decision: there is nothing to report; name another log"
    first, last = _time(log.manifest.first_ms), _time(log.manifest.last_ms)
    return (
        f"{log.directory} leads to no price decision by {_time(int(as_of))}: its events are from {first} to {last}; name a "
        "later time with --as-of"
    )


def describe_files(figures: Figures, what: str, file: Path) -> None:
    """Add the name of a file beside the page."""
    figures.add("files", what, unit="text", text=file.name)


def describe_log(figures: Figures, log: Log, wanted: Wanted, summary: Summary, users: int, items: int) -> None:
    """Add what was replayed."""
    manifest = log.manifest
    words = {
        "source": manifest.source,
        "offers": manifest.offers,
        "currency": manifest.semantics.currency,
        "from": _time(manifest.first_ms),
        "to": _time(manifest.last_ms),
        "order": "as a worker applied it" if log.recorded else wanted.order,
        "as of": "the end" if wanted.as_of == inf else _time(int(wanted.as_of)),
        "digest of the log": sha256_of(log.directory / MANIFEST),
        "digest of its prices, replayed": summary.digest,
    }
    for measure, text in words.items():
        figures.add("log", measure, unit="text", text=text)
    for measure, value in (
        ("events applied", summary.events),
        ("decisions", summary.decisions),
        ("users", users),
        ("items", items),
        ("dead letters", sum(summary.dead_letters.values())),
        ("records of catalogue or policies that were refused", summary.refused_references),
    ):
        figures.add("log", measure, value, unit="count")
    for rule in manifest.synthetic:
        figures.add("rules", "synthetic", unit="text", text=rule)


def describe_draws(figures: Figures, draws: Draws, head: DrawsHead, judged: int) -> None:
    """Add how many draws there are, why some are not judged, and how the record of them is proved."""
    unseen = int((~draws.exposed).sum())
    for measure, value in (
        ("draws with an outcome", len(draws)),
        ("draws whose window the log does not see the end of", head.pending),
        ("draws that no user saw", unseen),
        ("draws seen, of which nothing may be learned", len(draws) - unseen - judged),
        ("draws judged, forced ones among them", judged),
        ("purchases at the drawn price", int((draws.quantity > 0).sum())),
    ):
        figures.add("log", measure, value, unit="count")
    figures.add("proof", PROVED, head.replayed.met, unit="count", text=head.replayed.says)
    figures.add("scope", "estimand", unit="text", text=f"What is estimated: {ESTIMAND}.")
    for text in _CAN_SHOWN:
        figures.add("scope", "limit", unit="text", text=text)


def refuse(figures: Figures, policies: Sequence[Policy], why: str) -> None:
    """Add that the log supports no answer."""
    for policy in policies:
        figures.add("verdict", "verdict", policy=policy.name, unit="text", text="REFUSE")
        figures.add("verdict", "why", policy=policy.name, unit="text", text=why)
    if not figures.where("scope", measure="estimand"):
        estimand = f"What would be estimated, if the log could say: {ESTIMAND}."
        figures.add("scope", "estimand", unit="text", text=estimand)
        for text in _CAN_NOT_SHOWN if why == NOT_SHOWN else ():
            figures.add("scope", "limit", unit="text", text=text)


def drop_verdicts(figures: Figures, names: Sequence[str]) -> None:
    """Take away the verdicts of what nobody asked about: it is there to be compared with, if its gates, which stay, let it."""
    figures.drop(lambda row: row.policy in names and row.section in ("verdict", "estimators", "clips"))


def goal_of(figures: Figures, draws: Draws) -> tuple[Literal["margin", "revenue"], Floats]:
    """Return what policies are judged by, and each draw's; says so in the figures."""
    if np.isfinite(draws.margin).all() and (draws.cost >= 0).all():
        text = "The value is margin: price less the catalogue's cost, times pieces, within the draw's window."
        figures.add("scope", "reward", unit="text", text=text)
        return "margin", draws.margin
    text = "The value is revenue, since the catalogue does not know every cost: price times pieces, within the draw's window."
    figures.add("scope", "reward", unit="text", text=text)
    return "revenue", draws.revenue


def horizon_of(figures: Figures, log: Log, window_ms: int) -> int | None:
    """Return the horizon within which a user comes back, or None where the log is too short; says so in the figures."""
    span_ms = log.manifest.last_ms - log.manifest.first_ms
    horizon_ms = min(7 * _DAY_MS, span_ms // 3)
    if horizon_ms < _DAY_MS // 2:
        text = f"Users who do not come back are left out: the log spans {span_ms / 3.6e6:.1f} hours, which is too short to tell."
        figures.add("scope", "horizon", unit="text", text=text)
        return None
    text = (
        f"A user does not come back after a draw if they have no event between {window_ms / 60_000:.0f} minutes and "
        f"{horizon_ms / _DAY_MS:.1f} days after it; draws less than that before the end of the log are left out there."
    )
    figures.add("scope", "horizon", unit="text", text=text)
    return horizon_ms


def describe_judging(figures: Figures, adaptive: bool, planned: int | None) -> None:
    """Add which interval judges, why, and when it holds."""
    once = not adaptive and planned is None
    figures.add("scope", "judged by", unit="text", text="bootstrap" if once else "anytime")
    if once:
        text = (
            "Verdicts rest on intervals by a bootstrap over users. They and the anytime-valid ones beside them are for a log of "
            "this length that is judged once."
        )
    else:
        why = _LEARNS if adaptive else _GROWS
        text = f"{why}verdicts rest on anytime-valid intervals. They hold {when_it_holds(planned)}."
        figures.add("scope", "limit", unit="text", text=text)
    figures.add("scope", "intervals", unit="text", text=text)


def describe_learning(figures: Figures, policies: Sequence[Policy], draws: Any) -> None:  # noqa: ANN401 - a pyarrow.Table
    """Add what each policy that learns knew at the draws with a choice, as of backtest.learning."""
    for policy in policies:
        known = known_by(policy, draws)
        if known is not None:
            figures.add("scope", "limit", policy=policy.name, unit="text", text=f"{known}.")


def catalogue_of(log: Log, items: Codes) -> tuple[dict[int, str], dict[int, str]]:
    """Return the latest title and category of every item, by code."""
    titles, categories = {code: name for name, code in items.of.items()}, {}
    for row in chain.from_iterable(log.catalogue()):
        code = items.of.get(row.item or "")
        if code is not None:
            titles[code] = f"{row.title or ''} ({row.item})" if row.title and row.title != row.item else row.item or ""
            categories[code] = row.category or ""
    return titles, categories


def test_from(figures: Figures, log: Log, artifacts: Sequence[Artifact]) -> int:
    """Return the event time from which models are tested: where the last of them ended to learn, if it says so."""
    until = [int(one.manifest.metrics["until_ms"]) for one in artifacts if "until_ms" in one.manifest.metrics]
    inside = [one for one in until if log.manifest.first_ms < one <= log.manifest.last_ms]
    from_ms = max(inside, default=log.manifest.first_ms)
    words = "where the last of the models ended to learn" if inside else "the beginning of the log"
    if any(one > log.manifest.last_ms for one in until):
        words += "; a model learned until after the end of this log, so it may have seen what it is tested on"
    text = f"Tested on events from {_time(from_ms)} on: {words}."
    figures.add("scope", "quality", unit="text", text=text)
    return from_ms


def describe_samples(figures: Figures, log: Log, share: float) -> None:
    """Add in which order models foretold, and of which users, where that takes a sentence."""
    if log.recorded:
        figures.add("scope", "quality", unit="text", text=_RECORDED)
    if share < 1.0:
        text = f"Purchases are asked for of {100 * share:.2g} % of the users, by a hash: this log is a long one."
        figures.add("scope", "quality", unit="text", text=text)


def describe_versions(figures: Figures, settings: Settings, policies: Sequence[Policy], models: Sequence[Path]) -> None:
    """Add versions, seeds and what was asked."""
    figures.add("versions", "seed of the bootstrap", unit="text", text=str(settings.seed))
    figures.add("versions", "resamples", unit="text", text=f"{settings.resamples:,}")
    if settings.planned is not None:
        figures.add("versions", "draws planned", unit="text", text=f"{settings.planned:,}")
    for policy in policies:
        text = msgspec.json.encode(policy).decode()
        figures.add("versions", f"policy {policy.name}", unit="text", text=text)
    for model in models:
        figures.add("versions", f"artifact {model.name}", unit="text", text=sha256_of(model / ARTIFACT_MANIFEST))
    figures.add("versions", "Python", unit="text", text=platform.python_version())
    for name in _PACKAGES:
        figures.add("versions", name, unit="text", text=_version(name))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
