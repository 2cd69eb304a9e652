"""An evaluation as a page: tables for a terminal, Markdown, the reliability diagram as SVG. Formats, and computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import sqrt
from typing import NamedTuple

from rich.table import Table

from model_export.evaluation import MODEL, ROLLING_BASELINE, Evaluation, PropensityResult
from model_export.next_item import SLICES, TOP
from model_export.propensity import BINS, PURCHASE_WITHIN_MS, PropensityMetrics

_WITHIN = f"{PURCHASE_WITHIN_MS // 60_000} min"
_NEXT_ITEM_RULES = (
    "A method learns from the events before the split. For each event from the split on whose user has an earlier event it "
    "ranks the candidates; the event's item is the one right answer. It knows all earlier events of that user, those after "
    "the split included.",
    "Candidates, the same for every method: the items of events before the split, and the catalogue entries in force by "
    "then. An event whose item is none of them is a miss for every method.",
    "Equal scores go to the more popular item, for every method.",
    "Without repeats: the events whose item is not the user's last one; there the last item is no candidate, for any method.",
    "New users have no event before the split.",
    "Settings are chosen on a slice in time before the split, by methods that learned from what lies before that slice: by "
    "NDCG@20 of all events and of those without repeats, added.",
    "The model scores an item by the user's vector and the items of the last tokens, as `features.artifact.Artifact.scores` says.",
)
_PROPENSITY_RULES = (
    f"An example is a view, click or cart; its label is whether that user buys that item within {_WITHIN} after it. Only "
    "examples whose window is over before the split (learning) or before the end of the log (test) count.",
    "The baseline is a logistic regression on the rolling features (windows of 1 h, 24 h and 30 d, session, affinities, "
    "price, time since the event before); its strength of regularisation is chosen on the slice before the split.",
    f"Calibration error: mean |predicted - observed| over {BINS} bins of equal mass.",
)


class Sheet(NamedTuple):
    """A table of text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def sheets_of(evaluation: Evaluation) -> list[Sheet]:
    """Return the tables of an evaluation; a slice without events has none, and a log without purchases no propensity."""
    judged = evaluation.propensity
    return [*_ranked(evaluation), *([] if isinstance(judged, str) else [_propensity(judged)])]


def _ranked(evaluation: Evaluation) -> list[Sheet]:
    found = evaluation.next_item.methods
    sheets = []
    for name in SLICES:
        events = next(iter(found.values()))[name].events
        if not events:
            continue
        rows = [(method, *(f"{value:.3f}" for value in slices[name][:3])) for method, slices in found.items()]
        sheets.append(
            Sheet(f"Next item, {name}: {events:,} events", ("", f"Recall@{TOP}", f"NDCG@{TOP}", f"MRR@{TOP}"), rows)
        )
    return sheets


def _propensity(judged: PropensityResult) -> Sheet:
    rows = [(method, *(f"{value:.4f}" for value in metrics[:3])) for method, metrics in judged.methods.items()]
    title = f"Purchase within {_WITHIN}: {judged.examples:,} examples"
    return Sheet(title, ("", "AUC", "log-loss", "calibration error"), rows)


def doubt_of(evaluation: Evaluation) -> str | None:
    """Return the sentences that warn of a test on what the model may have learned from, None without reason to."""
    doubt = evaluation.doubt
    if doubt is None:
        return None
    return (
        f"{doubt.events:,} of the tested events lie before {time_of(doubt.until_ms)}, where the model's training ended. It names "
        "another log, but the same events written again, in other partitions say, are another log, too. If it learned from these "
        "events, its figures here are too good: test it from that time on, or train it with --until."
    )


def rich_table(sheet: Sheet) -> Table:
    """Return `sheet` for a terminal."""
    table = Table(title=sheet.title, title_justify="left")
    for place, name in enumerate(sheet.header):
        table.add_column(name, justify="right" if place else "left")
    for row in sheet.rows:
        table.add_row(*row, style="bold" if row[0].startswith(MODEL) else None)
    return table


def markdown_of(evaluation: Evaluation, command: str, diagram: str) -> str:
    """Return the page.

    Args:
        evaluation: what was found.
        command: what made the page.
        diagram: path of the reliability diagram, as the page links it where there is a propensity.
    """
    found, judged = evaluation.next_item, evaluation.propensity
    chosen = {**found.settings, **({} if isinstance(judged, str) else judged.settings)}
    settings = "; ".join(f"{name}: {words}" for name, words in chosen.items() if words)
    model = f"Model `{evaluation.model}`." if evaluation.model else "Without a model: the baselines alone."
    parts = [
        "# Quality of the model",
        f"Made by `{command}`; do not edit. {model}",
        f"Log: {evaluation.source} sha256 of its events {evaluation.log_digest[:16]}. Split at {time_of(evaluation.split_ms)}; "
        f"the test ends at {time_of(evaluation.until_ms)}. One log, one split: no statement about other shops.",
        *(f"**The model may have learned from the test.** {doubt}" for doubt in (doubt_of(evaluation),) if doubt),
        "## Next item",
        bullets(_NEXT_ITEM_RULES),
        f"{found.events:,} test events, {found.candidates:,} candidates. {found.cold_share:.1%} of the events are about an item "
        f"that is no candidate, {found.repeat_share:.1%} repeat the user's last item, {found.new_user_share:.1%} are of new "
        f"users. Settings: {settings}. The largest standard error of a mean in these tables, by user, is "
        f"{found.standard_error:.4f}.",
        *map(markdown_table, _ranked(evaluation)),
        "## Purchase propensity",
        *([f"Not asked. {judged}."] if isinstance(judged, str) else _propensity_parts(judged, diagram)),
    ]
    return "\n\n".join(parts) + "\n"


def _propensity_parts(learned: PropensityResult, diagram: str) -> list[str]:
    return [
        bullets(_PROPENSITY_RULES),
        f"Learned from {learned.learned_examples:,} examples, {learned.learned_bought_share:.2%} of them bought; tested on "
        f"{learned.examples:,}, {learned.bought_share:.2%} bought. {learned.off_list_share:.2%} of the tested examples were seen "
        "at a price other than list; the propensity is that at list price, so nothing here is about a slope in price.",
        markdown_table(_propensity(learned)),
        f"![reliability diagram]({diagram})",
    ]


def time_of(ms: int) -> str:
    """Return an event time for people, UTC to the second."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def bullets(sentences: Sequence[str]) -> str:
    """Return a Markdown list."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def markdown_table(sheet: Sheet) -> str:
    """Return `sheet` as Markdown, its title above it."""
    head = "| " + " | ".join(sheet.header) + " |"
    rule = "|---|" + "---:|" * (len(sheet.header) - 1)
    rows = ["| " + " | ".join(row) + " |" for row in sheet.rows]
    return "\n".join([f"**{sheet.title}**", "", head, rule, *rows])


_SIDE, _MARGIN = 360, 56
_COLOURS = {MODEL: "#c2410c", ROLLING_BASELINE: "#1d4ed8"}
_TICKS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


def reliability_svg(methods: Mapping[str, PropensityMetrics]) -> str:
    """Return the reliability diagram: observed against predicted share of purchases per bin, both axes as square roots."""
    points = [share for metrics in methods.values() for one in metrics.bins for share in one[:2]]
    top = max(points, default=1.0)

    def x_of(share: float) -> float:
        return round(_MARGIN + _SIDE * sqrt(share / top), 1)

    def y_of(share: float) -> float:
        return round(_MARGIN + _SIDE - _SIDE * sqrt(share / top), 1)

    left, bottom, right = _MARGIN, _MARGIN + _SIDE, _MARGIN + _SIDE
    shapes = [
        f'<rect x="{left}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#888"/>',
        f'<line x1="{left}" y1="{bottom}" x2="{right}" y2="{_MARGIN}" stroke="#888" stroke-dasharray="4 4"/>',
        _label(left + _SIDE / 2, bottom + 40, "predicted share"),
        _label(left, _MARGIN - 30, "observed share", "start"),
    ]
    for tick in (tick for tick in _TICKS if tick <= top):
        shapes.append(_label(x_of(tick), bottom + 18, f"{tick:.0%}"))
        shapes.append(_label(left - 8, y_of(tick) + 4, f"{tick:.0%}", "end"))
    for place, (name, metrics) in enumerate(methods.items()):
        colour = _COLOURS.get(name, "#444")
        shapes.append(f'<circle cx="{left + 16}" cy="{_MARGIN + 16 + 18 * place}" r="4" fill="{colour}"/>')
        shapes.append(_label(left + 26, _MARGIN + 20 + 18 * place, name, "start"))
        line = " ".join(f"{x_of(one.predicted)},{y_of(one.observed)}" for one in metrics.bins)
        shapes.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-opacity="0.5"/>')
        shapes += [
            f'<circle cx="{x_of(one.predicted)}" cy="{y_of(one.observed)}" r="4" fill="{colour}"/>'
            for one in metrics.bins
        ]
    size = _SIDE + 2 * _MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" font-family="sans-serif" font-size="12">'
    )
    return "\n".join([head, f'<rect width="{size}" height="{size}" fill="white"/>', *shapes, "</svg>"]) + "\n"


def _label(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="#222">{text}</text>'
