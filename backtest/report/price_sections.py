"""The sections of a report that need no outcomes: the log, what the policies publish, rails, fairness, predictions, files.

Not here: sections on value (sections).
"""

from __future__ import annotations

from collections.abc import Sequence

from backtest.report import plots
from backtest.report.blocks import Block, Cell, Notes, Plot, Row, Section, Table, cell, cell_of, row_of
from backtest.report.divisions import NEW_USER_EVENTS
from backtest.report.figures import Figures


def log_section(figures: Figures) -> Section:
    """Return what was replayed."""
    section = Section("log", "The log and the run", "What was replayed, by what, and what the log itself did.")
    rows = [Row(row.measure, [cell(number, row)]) for number, row in figures.where("log")]
    section.blocks.append(Table((), rows))
    rules = [row.text for _, row in figures.where("rules")]
    if rules:
        section.blocks.append(Notes(["Rows that no shop ever saw are made by these rules:"], rules))
    return section


def prices_section(figures: Figures) -> Section:
    """Return what the policies would have published."""
    policies = figures.names("prices", "policy")
    section = Section(
        "prices",
        "Prices",
        "What each policy publishes when the log is replayed under it: the events stay as they were recorded, so "
        "nothing here says how people would have answered.",
    )
    section.blocks.append(_across(figures, "prices", policies))
    section.blocks.append(Plot(plots.multipliers(figures), "Share of prices at each share of list price."))
    if figures.where("paths"):
        caption = "Price paths of the items priced most often: the mean price, and thin the lowest and the highest of that time."
        section.blocks.append(Plot(plots.paths(figures), caption))
    return section


def _across(figures: Figures, section: str, policies: Sequence[str], caption: str = "") -> Table:
    """Return a row per measure, a column per policy."""
    rows = [
        Row(measure, [cell_of(figures, section, measure=measure, policy=policy) for policy in policies])
        for measure in figures.names(section, "measure")
    ]
    return Table(("", *policies), rows, caption)


def rails_section(figures: Figures) -> Section | None:
    """Return which rails bound."""
    rails = figures.names("rails", "group")
    if not rails:
        return None
    section = Section(
        "rails",
        "Rails",
        "Left: how often a rail took prices away from the policy's choice; right: how often it was what decided "
        "the price.",
    )
    policies = figures.names("rails", "policy")
    head = ["", *(f"{policy}: took prices away" for policy in policies), *(f"{policy}: decided" for policy in policies)]
    rows = [
        Row(
            rail,
            [
                cell_of(figures, "rails", group=rail, measure=measure, policy=policy)
                for measure in ("took prices away", "decided the price")
                for policy in policies
            ],
        )
        for rail in rails
    ]
    section.blocks.append(Table(head, rows))
    return section


def fairness_section(figures: Figures) -> Section:
    """Return dispersion, parity between groups and tenure."""
    section = Section(
        "fairness",
        "Dispersion and parity",
        "How far prices of one item lie apart in one hour, and whether groups of users pay different shares of "
        "list price; a price that rises with tenure punishes loyalty.",
    )
    policies = figures.names("dispersion", "policy")
    caption = "Highest over lowest price over list, of one item in one hour"
    section.blocks.append(_across(figures, "dispersion", policies, caption))
    rows = []
    for segment in figures.names("parity", "segment"):
        for place, group in enumerate(figures.names("parity", "group", segment=segment)):
            wanted = {"segment": segment, "group": group}
            cells = [cell_of(figures, "parity", measure="draws", **wanted)]
            cells += [
                cell_of(figures, "parity", policy=policy, measure="mean price over list", **wanted)
                for policy in policies
            ]
            rows.append(Row(f"{segment}: {group}", cells, place == 0))
    caption = f"Mean price over list of draws, by group; new users have fewer than {NEW_USER_EVENTS} events by then"
    section.blocks.append(Table(("", f"draws {policies[0]}", *policies), rows, caption))
    rows = [
        Row(segment, [cell_of(figures, "gaps", segment=segment, policy=policy) for policy in policies])
        for segment in figures.names("gaps", "segment")
    ]
    section.blocks.append(Table(("", *policies), rows, "Largest gap between groups' means"))
    section.blocks.extend(_tenure(figures, policies))
    return section


def _tenure(figures: Figures, policies: Sequence[str]) -> list[Block]:
    rows = [
        Row(
            group,
            [
                cell_of(figures, "tenure", policy=policy, group=group, measure="mean price over list")
                for policy in policies
            ],
        )
        for group in figures.names("tenure", "group", segment="tenure")
    ]
    measure = "change of price over list per tenfold events"
    slopes = [cell_of(figures, "tenure", policy=policy, measure=measure) for policy in policies]
    words = [
        Cell(row.text) for policy in policies for _, row in figures.where("tenure", policy=policy, measure=measure)
    ]
    rows += [Row(measure, slopes, first=True), Row("", words)]
    return [
        Table(
            ("", *policies),
            rows,
            "Tenure: mean price over list by the user's events so far, draws only; intent and items are as they come",
        )
    ]


def quality_section(figures: Figures) -> Section | None:
    """Return how well the models foretell what users do."""
    models = figures.names("quality", "policy")
    if not models:
        return None
    section = Section(
        "quality",
        "Predictions",
        "How well each artifact foretells purchases (propensity) and the next item (recommendation) on this log, "
        "side by side; higher is better but for log-loss and calibration error. Differences are event by event, with "
        "intervals clustered by user.",
    )
    for segment in figures.names("quality", "segment"):
        rows = [
            row_of_models(figures, measure, segment, models)
            for measure in figures.names("quality", "measure", segment=segment)
            if measure != "observed share"
        ]
        section.blocks.append(Table(("", *models), rows, segment))
    if figures.where("calibration"):
        section.blocks.append(
            Plot(plots.calibration(figures, "calibration"), "Purchase propensity: observed against predicted.")
        )
    if figures.where("slices"):
        section.blocks.append(_slices(figures, models))
    section.blocks.append(Notes([row.text for _, row in figures.where("scope", measure="quality")]))
    return section


def _slices(figures: Figures, models: Sequence[str]) -> Table:
    """Return how well purchases are foretold slice by slice, a row each."""
    rows = []
    for segment in figures.names("slices", "segment"):
        for place, group in enumerate(figures.names("slices", "group", segment=segment)):
            wanted = {"segment": segment, "group": group}
            cells = [cell_of(figures, "slices", measure="examples", **wanted)]
            cells += [
                cell_of(figures, "slices", measure=measure, policy=model, **wanted)
                for model in models
                for measure in ("AUC", "log-loss")
            ]
            rows.append(Row(f"{segment}: {group}", cells, place == 0))
    head = ("", "examples", *(f"{model}: {measure}" for model in models for measure in ("AUC", "log-loss")))
    return Table(head, rows, "purchase propensity, slice by slice of what is tested")


def row_of_models(figures: Figures, measure: str, segment: str, models: Sequence[str]) -> Row:
    """Return one measure of all models."""
    return Row(
        measure, [cell_of(figures, "quality", measure=measure, segment=segment, policy=model) for model in models]
    )


def folds_section(figures: Figures) -> Section | None:
    """Return the cross-validation of the reward model."""
    if not figures.where("folds"):
        return None
    section = Section(
        "folds",
        "The reward model, cross-validated",
        "DM and DR lean on a model of what sells: by user, each fold is judged by a model that never saw its "
        "users; by time, each slice by what lay before it. Log-loss below that of a constant means that it knows "
        "something.",
    )
    measures = ("draws", "log-loss", "log-loss of a constant", "AUC", "predicted", "observed")
    rows = []
    for segment in figures.names("folds", "segment"):
        for place, group in enumerate(figures.names("folds", "group", segment=segment)):
            rows.append(
                row_of(figures, f"{segment}: {group}", "folds", measures, place == 0, segment=segment, group=group)
            )
    section.blocks.append(Table(("", *measures), rows))
    return section


def files_section(figures: Figures) -> Section:
    """Return where the numbers of the page are, and what made them."""
    section = Section(
        "files",
        "Files, versions, seed",
        "Every number on this page is a row of the figures; the figures can be recomputed from the tables beside them.",
    )
    for name in ("files", "versions"):
        rows = [Row(row.measure, [cell(number, row)]) for number, row in figures.where(name)]
        section.blocks.append(Table((), rows))
    return section
