"""An explanation for people: tables and lines, in English or in Chinese. Computes nothing (pricing.explanation does)."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from contracts.decisions import Applied, Decision
from contracts.rules import OF_A_MODEL
from pricing.explanation import Check, Explanation, Part, Prospect
from pricing.sentences import (
    STATUSES,
    Language,
    check_words,
    explain,
    feature_words,
    money,
    rule_words,
    step_line,
    unpriced,
)

BAR = 24
"""Characters of a probability of 1."""
LABELS: dict[Language, dict[str, str]] = {
    "en": {
        "prices": "What could have been charged", "price": "price", "share": "of list", "probability": "probability",
        "chosen": "chosen", "listed": "list price", "parts": "What each feature adds to the log-odds of a purchase",
        "feature": "feature", "value": "value", "level": "at list price", "response": "per 20 % off", "adds": "at this price",
        "sum": "sum", "prospects": "What is expected", "purchase": "purchase", "revenue": "revenue per offer",
        "margin": "margin per piece", "expected_margin": "margin per offer", "unknown": "not available",
        "why": "Why no others", "checks": "Verified", "status": "status", "binding": "binding rule", "policy": "policy",
        "propensity": "propensity", "learned": "learned until then", "model": "model", "experiment": "experiment",
        "event": "event", "yes": "yes", "no": "NO", "open": "cannot be verified", "forced": "forced",
        "explored": "explored", "held_out": "held out",
        "objective": "no cost is known, so revenue is what the policy aims at; margin is not available",
        "no_model": "no model was in force, so the policy knew nothing of what a model says of the visit",
    },
    "zh": {
        "prices": "当时可选的价格", "price": "价格", "share": "占标价", "probability": "概率", "chosen": "选定", "listed": "标价",
        "parts": "各特征对购买对数几率的贡献", "feature": "特征", "value": "取值", "level": "按标价", "response": "每优惠 20%",
        "adds": "按此价格", "sum": "合计", "prospects": "预期结果", "purchase": "购买概率", "revenue": "每次报价的收入",
        "margin": "单件毛利", "expected_margin": "每次报价的毛利", "unknown": "无法提供", "why": "为何没有其他价格",
        "checks": "核对", "status": "状态", "binding": "起约束作用的规则", "policy": "策略", "propensity": "倾向概率",
        "learned": "当时的学习结果", "model": "模型", "experiment": "实验", "event": "事件", "yes": "是", "no": "否",
        "open": "无法核对", "forced": "别无选择", "explored": "试探", "held_out": "对照组",
        "objective": "成本未知，策略以收入为目标；毛利无法提供",
        "no_model": "当时没有启用模型，因此策略不掌握模型对本次访问的判断",
    },
}  # fmt: skip


def page(explanation: Explanation, language: Language) -> RenderableType:
    """Return everything about one decision."""
    decision, say = explanation.decision, LABELS[language]
    sentence = explain(decision, language, untaught=explanation.untaught)
    parts: list[RenderableType] = [Text(sentence, "bold"), _facts(explanation, language)]
    if explanation.options:
        parts.append(_options(explanation, say))
    if explanation.parts:
        parts.append(_contributions(explanation, language))
        kinds = {_kind(part) for part in explanation.parts}
        if (explanation.draw or decision).model is None and not kinds.isdisjoint(OF_A_MODEL):
            parts.append(Text(say["no_model"], "italic"))
    parts.append(_prospects(explanation, say))
    if explanation.cost_source == "none":
        parts.append(Text(say["objective"], "italic"))
    source = explanation.draw or decision
    if source.trail:
        lines = [step_line(step, source.currency, len(source.lattice), language) for step in source.trail]
        parts.append(Text("\n".join([f"{say['why']}:", *[f"  {line}" for line in lines]])))
    parts.append(_checks(explanation.checks, language))
    return Group(*parts)


def applied_page(record: Applied, language: Language) -> str:
    """Return the sentence of a record that led to no price."""
    return unpriced(record.outcome, language)


def as_json(explanation: Explanation, language: Language) -> dict[str, Any]:
    """Return an explanation as data."""
    sentence = explain(explanation.decision, language, untaught=explanation.untaught)
    plain: dict[str, Any] = msgspec.to_builtins(explanation)
    return {"sentence": sentence, "language": language} | plain


def _facts(explanation: Explanation, language: Language) -> Table:
    decision, say = explanation.decision, LABELS[language]
    source = explanation.draw or decision
    table = Table(show_header=False, box=None, padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    names = ("forced", "held_out" if source.held_out else "explored")  # who is held out was not explored with
    flags = [say[name] for name in names if getattr(source, name)]
    rows = {
        "status": f"{STATUSES[language][decision.status]}{''.join(f' · {flag}' for flag in flags)}",
        "binding": None if decision.binding_rule is None else rule_words(decision.binding_rule, language),
        "propensity": f"{decision.propensity:.6g}",
        "policy": decision.policy,
        "learned": source.learned,
        "model": decision.model,
        "experiment": decision.experiment and f"{decision.experiment} · {decision.variant}",
        "event": _where(decision),
    }
    for name, value in rows.items():
        if value is not None:
            table.add_row(say[name], Text(value))
    return table


def _where(decision: Decision) -> str:
    at, place = datetime.fromtimestamp(decision.event_time_ms / 1000, UTC), decision.source
    return f"{at:%Y-%m-%d %H:%M:%S} UTC, {place.topic}/{place.partition}/{place.offset}"


def _options(explanation: Explanation, say: dict[str, str]) -> Table:
    table = Table(title=say["prices"], title_justify="left")
    for name in ("price", "share", "probability"):
        table.add_column(say[name], justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=BAR)
    table.add_column("")
    for option in explanation.options:
        chance = option.probability
        marks = [say[name] for name, on in (("chosen", option.chosen), ("listed", option.listed)) if on]
        table.add_row(
            money(option.price, explanation.decision.currency),
            f"{option.permille / 10:.1f} %",
            "" if chance is None else f"{chance:.4f}",
            "" if chance is None else "█" * max(round(chance * BAR), 1 if chance > 0 else 0),
            ", ".join(marks),
            style="bold" if option.chosen else None,
        )
    return table


def _contributions(explanation: Explanation, language: Language) -> Table:
    say = LABELS[language]
    table = Table(title=say["parts"], title_justify="left", show_footer=True)
    assert explanation.log_odds is not None
    level, response = (sum(getattr(part, name) for part in explanation.parts) for name in ("level", "response"))
    table.add_column(say["feature"], say["sum"])
    table.add_column(say["value"], justify="right")
    for name, total in (("level", level), ("response", response), ("adds", explanation.log_odds)):
        table.add_column(say[name], _log_odds(total), justify="right")
    for part in sorted(explanation.parts, key=lambda part: -abs(part.adds)):
        if part.value != 0.0:
            value = "" if part.value is None else f"{part.value:.4g}"
            name = feature_words(part.feature, language)
            table.add_row(name, value, *(_log_odds(one) for one in (part.level, part.response, part.adds)))
    silent = Counter(_kind(part) for part in explanation.parts if part.value == 0.0)
    if silent:  # one row for all: without a model there are seventeen
        names = [f"{feature_words(kind, language)}{f' ({n})' if n > 1 else ''}" for kind, n in silent.items()]
        table.add_row("\n".join(names), "0", *[_log_odds(0.0)] * 3)
    return table


def _log_odds(value: float) -> str:
    return f"{round(value, 4) + 0.0:+.4f}"  # no minus before a zero


def _kind(part: Part) -> str:
    """Return the name of a part's feature in the rule's list: `vector` for each of its numbers."""
    kind, _, number = part.feature.rpartition("_")
    return kind if number.isdecimal() else part.feature


def _prospects(explanation: Explanation, say: dict[str, str]) -> Table:
    table = Table(title=say["prospects"], title_justify="left")
    table.add_column("")
    columns = ("price", "purchase", "revenue", "margin", "expected_margin")
    for name in columns:
        table.add_column(say[name], justify="right")
    for name, prospect in (("chosen", explanation.chosen), ("listed", explanation.listed)):
        table.add_row(say[name], *_prospect(prospect, explanation.decision.currency, say["unknown"]))
    return table


def _prospect(prospect: Prospect, currency: str, unknown: str) -> list[str]:
    def amount(value: float | None) -> str:
        return unknown if value is None else _signed(round(value), currency)

    chance = unknown if prospect.purchase is None else f"{prospect.purchase:.2%}"
    amounts = [amount(value) for value in (prospect.expected_revenue, prospect.margin, prospect.expected_margin)]
    return [money(prospect.price, currency), chance, *amounts]


def _signed(minor: int, currency: str) -> str:
    return f"-{money(-minor, currency)}" if minor < 0 else money(minor, currency)


def _checks(checks: tuple[Check, ...], language: Language) -> Table:
    say = LABELS[language]
    table = Table(title=say["checks"], title_justify="left", show_header=False, box=None, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        style = {True: "green", False: "bold red", None: "yellow"}[check.agrees]
        word = {True: say["yes"], False: say["no"], None: say["open"]}[check.agrees]
        table.add_row(Text(word, style), Text(check_words(check, language)))
    return table
