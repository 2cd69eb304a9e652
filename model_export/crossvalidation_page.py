"""A cross-validation as tables, for a terminal and as a page in Markdown. Formats, and computes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from model_export.crossvalidation import CrossValidation
from model_export.next_item import SLICES
from model_export.propensity import PURCHASE_WITHIN_MS
from model_export.quality_report import Sheet, bullets, markdown_table, time_of
from model_export.spreads import PROPENSITY, PURCHASES, RANKING, Fold, Spread

_SHOWN = (SLICES[0], SLICES[2])
"""Slices with tables; the JSON has those of new users, too."""
_TITLES = {PURCHASES: f"Purchase within {PURCHASE_WITHIN_MS // 60_000} min"}
_SPLITS = {
    "time": "Rolling origin: the log is cut, by event time, into one part more than there are folds, of equally many events. Fold "
    "k learns from the first k parts and is tested on the one after them.",
    "user": "A hash of the user names their fold. Fold k learns from the users of the other folds, over all the time of the log, "
    "and is tested on its own users, who are new to the model; it knows a user's earlier events when it is asked about one.",
}
_RULES = (
    "Every fold trains a model of its own and chooses the settings of every baseline, on the end of its own learned part: "
    "early stopping, calibration and settings see nothing of its test. Shared are the catalogue in force when learning ends, and "
    "the text vectors of items if they were given.",
    "Protocol, candidates, baselines and metrics are those of `pricetide model evaluate`.",
    "Standard error: of the mean over folds, s / sqrt(folds). Interval: Student's t. Folds share most of what they learn from, "
    "and folds in time follow one another, so they are not independent: the intervals are no better than that.",
    "The last row is the model less the baseline with the best mean, fold by fold. For log-loss and calibration error less is "
    "better.",
)


def sheets_of(found: CrossValidation) -> list[Sheet]:
    """Return the tables: the folds, then one per slice and metric."""
    sheets = [_folds_sheet(found.folds)]
    for name, metrics in (*((shown, RANKING) for shown in _SHOWN), (PURCHASES, PROPENSITY)):
        for metric in metrics:
            rows = [one for one in found.summary if (one.slice, one.metric) == (name, metric)]
            if rows:
                sheets.append(_sheet(name, metric, found.folds, rows))
    return sheets


def markdown_of(found: CrossValidation, command: str) -> str:
    """Return the page; `command` is what made it."""
    plan = found.plan
    folds, *sheets = [markdown_table(sheet) for sheet in sheets_of(found)]
    settings = bullets(
        [
            f"Fold {fold.fold}, model `{fold.model}`, {fold.epochs} epoch(s). Baselines: "
            + "; ".join(f"{name}: {words}" for name, words in fold.settings.items() if words)
            for fold in found.folds
        ]
    )
    parts = [
        f"# Cross-validation by {plan.by}",
        f"Made by `{command}`; do not edit. Log: {plan.source} Digest {plan.log_digest}. Text: {plan.text}. Seed "
        f"{plan.options.seed}, at most {plan.options.epochs} epoch(s)"
        + ("." if plan.options.refit else ", without learning from the validation slice."),
        bullets([_SPLITS[plan.by], *_RULES]),
        folds,
        settings,
        *sheets,
    ]
    return "\n\n".join(parts) + "\n"


def _folds_sheet(folds: Sequence[Fold]) -> Sheet:
    header = (
        "",
        "learns from events",
        "of users",
        "tested events",
        "of users",
        "new users'",
        "from",
        "until",
        "bought",
    )
    rows = [
        (
            f"fold {one.fold}",
            f"{one.learned_events:,}",
            f"{one.learned_users:,}",
            f"{one.tested_events:,}",
            f"{one.tested_users:,}",
            f"{one.new_user_share:.1%}",
            time_of(one.tested_from_ms),
            time_of(one.tested_until_ms),
            f"{one.bought_share:.2%} of {one.examples:,}",
        )
        for one in folds
    ]
    return Sheet("Folds", header, rows)


def _sheet(name: str, metric: str, folds: Sequence[Fold], rows: Sequence[Spread]) -> Sheet:
    shown = [
        (
            row.method,
            *(_number(row.values.get(fold.fold)) for fold in folds),
            _number(row.mean),
            _number(row.standard_error),
            f"{row.low:.4f} to {row.high:.4f}",
        )
        for row in rows
    ]
    header = ("", *(f"fold {fold.fold}" for fold in folds), "mean", "standard error", "95 %")
    return Sheet(f"{_TITLES.get(name, f'Next item, {name}')}: {metric}", header, shown)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
