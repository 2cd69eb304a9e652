"""The sections of a report that speak of value: verdicts, lifts, estimators, diagnostics, segments, demand.

Each takes the figures and returns a section, or None where there are no figures for it. Not here: sections on prices and on
predictions (price_sections), how any of it looks (page.html.jinja).
"""

from __future__ import annotations

from backtest.gates import AT_LEAST
from backtest.report import plots
from backtest.report.blocks import (
    EMPTY,
    Block,
    Card,
    Cards,
    Cell,
    Line,
    More,
    Notes,
    Plot,
    Row,
    Section,
    Table,
    cell,
    cell_of,
    row_of,
)
from backtest.report.both_intervals import both_intervals
from backtest.report.draws import LOGGED
from backtest.report.figures import PROVED, Figure, Figures, shown, shown_interval
from backtest.report.support import UNSUPPORTED
from backtest.report.targets import BEST_UNIFORM, LIST_PRICE
from backtest.report.values import ANYTIME, RESAMPLED

_TONES = {"REFUSE": "refuse", "REJECT": "reject", "INCONCLUSIVE": "inconclusive", "ADOPT_TO_AB": "adopt"}
_LIFT = f"lift over {LOGGED}"


def verdict_section(figures: Figures) -> Section:
    """Return what the log says, before anything else."""
    section = Section(
        "verdict",
        "Verdict",
        "REFUSE: this log cannot support an answer. REJECT: it can, and the policy is worse than the logged one. "
        "INCONCLUSIVE: it can, and there is no answer yet. ADOPT_TO_AB: better, and worth an A/B test.",
    )
    section.blocks.append(Cards([_card(figures, policy) for policy in asked(figures)]))
    estimand = figures.where("scope", measure="estimand")
    points = [row.text for _, row in figures.where("scope", measure="limit")]
    section.blocks.append(Notes([row.text for _, row in estimand], points))
    return section


def asked(figures: Figures) -> list[str]:
    """Return the policies that the report was asked about."""
    return figures.names("verdict", "policy", measure="verdict")


def _card(figures: Figures, policy: str) -> Card:
    (_, verdict), *_ = figures.where("verdict", policy=policy, measure="verdict")
    numbers = []
    if verdict.text != "REFUSE":
        for measure, label in ((f"relative {_LIFT}", "lift over the logged policy"), (_LIFT, "per draw")):
            for number, row in figures.where("value", policy=policy, measure=measure):
                numbers.append(Line(label, shown(row), shown_interval(row), number))
    why = [row.text for _, row in figures.where("verdict", policy=policy, measure="why")]
    return Card(policy, verdict.text, _TONES.get(verdict.text, "refuse"), numbers, why)


def value_section(figures: Figures) -> Section | None:
    """Return values and lifts of every policy and of the prices that it is held against."""
    if not figures.where("value"):
        return None
    section = Section(
        "value",
        "Value and lift",
        "Money per draw by SNIPS, which the lift is made of, with 95 % intervals: of numbers and coloured bars the one that "
        "judges; thin grey bars, where they are wider, are the anytime-valid one.",
    )
    section.blocks.append(Plot(plots.lifts(figures, _LIFT), "Lift over the logged policy, per draw."))
    heads = {
        "value": "value", _LIFT: "lift over logged", f"relative {_LIFT}": "relative",
        f"lift over {LIST_PRICE}": "lift over list price", f"lift over {BEST_UNIFORM}": "lift over best uniform",
    }  # fmt: skip
    section.blocks.extend(
        both_intervals(figures, {one: name for one, name in heads.items() if figures.where("value", measure=one)})
    )
    says = [f"{row.policy}: {row.text}." for _, row in figures.where("targets", measure="says")]
    says += [row.text for _, row in figures.where("targets", measure="missing")]
    says += [f"{row.policy}: {UNSUPPORTED} ({row.text})." for _, row in figures.where("targets", measure="refused")]
    how = [row.text for measure in ("intervals", "reward") for _, row in figures.where("scope", measure=measure)]
    section.blocks.append(Notes([*how, *says]))
    return section


def goals_section(figures: Figures) -> Section | None:
    """Return money, units and users who stay away, apart."""
    if not figures.where("goals") and not figures.where("churn"):
        return None
    section = Section(
        "goals",
        "Money, units, and who comes back",
        "A policy can win one and lose another: each line is estimated on its own (SNIPS), per draw, lift over the "
        "logged policy with its 95 % interval.",
    )
    measures = ("logged value", "value", "lift", "relative lift")
    for policy in figures.names("goals", "policy"):
        rows = [
            row_of(figures, group, "goals", measures, policy=policy, group=group)
            for group in figures.names("goals", "group", policy=policy)
        ]
        section.blocks.append(Table(("", "logged", "the policy", "lift", "relative"), rows, policy))
    section.blocks.append(Notes([row.text for _, row in figures.where("scope", measure="horizon")]))
    section.blocks.extend(_churn_blocks(figures))
    return section


def _churn_blocks(figures: Figures) -> list[Block]:
    """Return whether the chance to stay away that draws logged was right, and what prices do to it; nothing without figures."""
    notes = [row.text for _, row in figures.where("churn", measure="note")]
    if not figures.where("churn", measure="hazard"):
        return [Notes(notes)] if notes else []
    measures = ("draws", "hazard", "stayed away")
    groups = ["", *figures.names("churn", "group")]
    rows = [row_of(figures, group or "all", "churn", measures, group=group) for group in dict.fromkeys(groups)]
    table = Table(("", "draws", "logged hazard", "stayed away"), rows, "Logged churn hazard, in bins of its rank")
    effect = cell_of(figures, "churn", measure="slope_value")
    slope = Table(
        ("", "change"),
        [Row("chance to come back, for 20 % of list off", [effect])],
        "Effect of prices, by the lot of draws",
    )
    return [table, slope]


def truth_section(figures: Figures) -> Section | None:
    """Return what policies really earn, where a simulated shop says so."""
    if not figures.where("truth"):
        return None
    section = Section(
        "truth",
        "The truth",
        "This log is of a simulated shop that knows what every price would have earned: the section above must "
        "agree with it. The oracle asks the best feasible price of each draw; the best fixed price is one share of list price "
        "for all, which nobody knew before.",
    )
    section.blocks.append(Plot(plots.truth(figures), "True value per draw over time, against the oracle."))
    measures = [name for name in figures.names("truth", "measure") if name not in ("true value of the period", "note")]
    rows = [row_of(figures, policy, "truth", measures, policy=policy) for policy in figures.names("truth", "policy")]
    section.blocks.append(Table(("", *measures), rows))
    section.blocks.append(Notes([f"{row.policy}: {row.text}." for _, row in figures.where("truth", measure="note")]))
    return section


def estimators_section(figures: Figures) -> Section | None:
    """Return the table of estimators."""
    policies = [name for name in asked(figures) if figures.where("estimators", policy=name)]
    if not policies:
        return None
    section = Section(
        "estimators",
        "Estimators",
        "Eight ways to the same number: those on the weights (IPS, SNIPS) are all but unbiased, and noisy; the one on a "
        "model (DM) is steady, and as biased as the model. Clipped IPS, Switch-DR and DRos lie between, and their intervals "
        "hold what they estimate, not the value. Intervals resample users, which is for policies that did not learn. "
        "Where IPS, SNIPS, DR and SNDR disagree beyond their intervals, trust none.",
    )
    section.blocks.append(Plot(plots.estimators(figures, policies[:3]), "Value per draw by estimator."))
    measures = ("value", "standard error", "parameter")
    head = [
        "",
        *(name for policy in policies for name in (figures.label(policy), "standard error", "clip, tau, lambda")),
    ]
    rows = [
        Row(
            name,
            [
                cell_of(figures, "estimators", measure=measure, policy=policy, group=name)
                for policy in policies
                for measure in measures
            ],
        )
        for name in figures.names("estimators", "group")
    ]
    section.blocks.append(Table(head, rows))
    clips = [
        row_of(figures, f"{policy} · weights up to {group}", "clips", ("clipped IPS",), policy=policy, group=group)
        for policy in policies
        for group in figures.names("clips", "group", policy=policy)
    ]
    section.blocks.append(
        More("What hangs on large weights: clipped IPS over a grid of clips", [Table(("", "value"), clips)])
    )
    return section


def diagnostics_section(figures: Figures) -> Section | None:
    """Return gates, diagnostics and weights."""
    if not figures.where("diagnostics") and not figures.where("gates"):
        return None
    section = Section(
        "diagnostics",
        "Can the log carry it?",
        "A gate that fails ends in REFUSE: then the numbers above are not evidence. Weights far above 1 mean that "
        "few draws speak for many.",
    )
    policies = figures.names("gates", "policy")
    gates = [name for name in figures.names("gates", "measure") if name not in ("passed", "limit")]
    rows = []
    for gate in gates:
        cells = []
        for policy in policies:
            found = figures.where("gates", policy=policy, measure=gate)
            passed = figures.where("gates", policy=policy, measure="passed", group=gate)
            tone = "good" if passed and passed[0][1].value else "bad"
            if not found:
                cells.append(Cell(""))
                continue
            number, one = found[0]
            ((_, limit), *_) = figures.where("gates", policy=policy, measure="limit", group=gate)
            words = f"{_wanted(gate, limit)}: {'passed' if tone == 'good' else 'failed'}"
            cells.append(Cell(shown(one), "", number, tone, words))
        rows.append(Row("mean weight, standard errors from 1" if gate == "mean weight" else gate, cells))
    for number, one in figures.where("proof", measure=PROVED):
        rows.append(Row(PROVED, [Cell(shown(one), "", number, "good", f"{one.text}: passed")] * len(policies)))
    if policies:
        section.blocks.append(Table(("gate", *policies), rows, "Gates"))
    if figures.where("weights"):
        section.blocks.append(Plot(plots.weights(figures), "Importance weights of the judged draws."))
    measures = figures.names("diagnostics", "measure")
    policies = figures.names("diagnostics", "policy")
    rows = [
        Row(measure, [cell_of(figures, "diagnostics", measure=measure, policy=policy) for policy in policies])
        for measure in measures
    ]
    section.blocks.append(Table(("", *policies), rows, "Diagnostics"))
    return section


def _wanted(gate: str, limit: Figure) -> str:
    """Return what a gate lets pass, in words."""
    if not limit.value:
        return "none may be"
    number = f"{100.0 * limit.value:g}\u202f%" if limit.unit == "share" else f"{limit.value:g}"
    return f"{'at least' if gate in AT_LEAST else 'less than'} {number}"


def parts_section(figures: Figures) -> Section | None:
    """Return lifts by segment and by period."""
    if not figures.where("parts"):
        return None
    section = Section(
        "parts",
        "Segments and periods",
        "The same question of parts of the log, by SNIPS, with the interval that judges a log that is looked at once: many "
        "looks together, so one small part that wins or loses is likely luck; a part that fails its gates has no number.",
    )
    if figures.where("growth"):
        section.blocks.append(
            Plot(
                plots.growth(figures),
                "Lift over the logged policy, with 95 % intervals. Left: by the interval that judges a period by itself; one that "
                "fails its gates has no point. Right: anytime-valid intervals, which hold at all of these times together.",
            )
        )
    over = {f"lift over {LIST_PRICE}": "over list price", f"lift over {BEST_UNIFORM}": "over best uniform"}
    over = {measure: name for measure, name in over.items() if figures.where("value", measure=measure)}
    measures = ("draws", "purchases", "verdict", "logged value", "value", "lift", *over)
    head = ("", "draws", "purchases", "verdict", "logged value", "value", "lift", *over.values())
    for policy in figures.names("parts", "policy"):
        rows = []
        for segment in [name for name in figures.names("parts", "segment", policy=policy) if name]:
            for place, group in enumerate(figures.names("parts", "group", policy=policy, segment=segment)):
                wanted = {"policy": policy, "segment": segment, "group": group, "period": ""}
                rows.append(row_of(figures, f"{segment}: {group}", "parts", measures, place == 0, **wanted))
        section.blocks.append(Table(head, rows, f"{policy}, by segment"))
        periods = figures.names("parts", "period", policy=policy, segment="")
        rows = [row_of(figures, one, "parts", measures, policy=policy, segment="", period=one) for one in periods]
        both = [
            _both(figures, policy, segment, periods)
            for segment in figures.names("parts", "segment", policy=policy)
            if segment
        ]
        section.blocks.append(
            More(f"{policy}: each period, and segments by period", [Table(head, rows, "By period"), *both])
        )
        section.blocks.append(More(f"{policy}: estimators, goals and weights of each part", _closer(figures, policy)))
    return section


def _closer(figures: Figures, policy: str) -> list[Table]:
    """Return tables of what else is known of the parts of a log, a row per part."""
    found = figures.names("parts", "measure", policy=policy)
    shown_of = {
        "Lift by both intervals, and value by estimator, users resampled": [
            f"lift, {RESAMPLED}",
            f"lift, {ANYTIME}",
            *(one for one in found if one.startswith("value by ")),
        ],
        "Lift of each goal (SNIPS)": [
            "relative lift",
            *(one for one in found if one.startswith("lift of ")),
        ],
        "Weights": figures.names("diagnostics", "measure", policy=policy),
    }
    places = dict.fromkeys(
        (row.segment, row.group, row.period) for _, row in figures.where("parts", policy=policy, measure="verdict")
    )
    tables = []
    for caption, measures in shown_of.items():
        rows = []
        for segment, group, period in places:
            wanted = {"policy": policy, "segment": segment, "group": group, "period": period}
            label = f"{segment}: {group}" if segment else period
            row = row_of(figures, label, "parts", measures, False, **wanted)
            if any(one is not EMPTY for one in row.cells):
                rows.append(row)
        heads = [one.removeprefix("value by ").removeprefix("lift of ") for one in measures]
        tables.append(Table(("", *heads), rows, caption))
    return tables


def _both(figures: Figures, policy: str, segment: str, periods: list[str]) -> Table:
    rows = [
        Row(
            group,
            [
                cell_of(figures, "parts", policy=policy, segment=segment, group=group, period=period, measure="lift")
                for period in periods
            ],
        )
        for group in figures.names("parts", "group", policy=policy, segment=segment)
    ]
    return Table(("", *periods), rows, f"Lift per draw by {segment} and period")


def demand_section(figures: Figures) -> Section | None:
    """Return the demand curves."""
    if not figures.where("demand"):
        return None
    section = Section(
        "demand",
        "Demand",
        "The share of draws that sold at each price, as the log shows it, with Wilson intervals: a curve that "
        "falls to the right is what the policies live on. Not causal where discounts went to those who hesitated.",
    )
    section.blocks.append(Plot(plots.demand(figures), "Share of exposed draws that were bought, by price over list."))
    places = [(number, row) for number, row in figures.where("demand", measure="share bought", segment="")]
    rows = []
    for number, row in places:
        draws = next(
            (cell(*one) for one in figures.where("demand", measure="draws", segment="") if one[1].x == row.x), Cell("")
        )
        rows.append(Row(f"{(row.x or 0.0) / 10:g} % of list", [draws, cell(number, row)]))
    section.blocks.append(Table(("", "draws", "share that bought"), rows))
    return section
