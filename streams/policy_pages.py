"""Policies for people: as a table, as a file, as JSON, as what changes from one to another. Knows no kind of rule by name.

Not here: reading or publishing them (streams.policy_log, streams.policy_changes).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from contracts.learned import CurrentLearned, Learned
from contracts.policies import BUILTIN, KillSwitch, Policy
from contracts.rules import LearningRule
from streams.policy_log import Entry, PolicyLog

_IDENTITY = ("record", "name", "number")


def contents(policy: Policy) -> dict[str, Any]:
    """Return what a policy says, but for its name, by dotted name: rule.kind, rails.dwell_ms, ..."""
    return _flat({name: value for name, value in _plain(policy).items() if name not in _IDENTITY})


def _plain(policy: Policy) -> dict[str, Any]:
    """Return a policy as plain data without absent fields, identity first, tables last, as TOML wants them."""
    plain = _present(msgspec.to_builtins(policy))
    return dict(sorted(plain.items(), key=lambda item: (item[0] not in _IDENTITY, isinstance(item[1], dict))))


def _present(plain: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _present(value) if isinstance(value, dict) else value
        for name, value in plain.items()
        if value is not None
    }


def _flat(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def text_of(value: Any) -> str:  # noqa: ANN401 - whatever a rule may hold
    """Return a value of `contents` in one line."""
    if isinstance(value, list | tuple):
        return ", ".join(text_of(one) for one in value) or "none"
    return "absent" if value is None else str(value)


def differences(before: Policy, after: Policy) -> list[str]:
    """Return a line for every field in which two policies differ; empty when they price alike."""
    old, new = contents(before), contents(after)
    names = [name for name in dict.fromkeys([*new, *old]) if old.get(name) != new.get(name)]
    groups = list(dict.fromkeys(name.partition(".")[0] for name in names))
    names.sort(key=lambda name: groups.index(name.partition(".")[0]))
    width = max((len(name) for name in names), default=0)
    return [f"  {name:{width}}  {text_of(old.get(name))} -> {text_of(new.get(name))}" for name in names]


def policy_file(policy: Policy) -> str:
    """Return `policy` as TOML that `pricetide policy apply` takes."""
    plain = _plain(policy)
    del plain["record"], plain["number"]
    return f"# {policy.version}\n{msgspec.toml.encode(plain).decode()}"


def policy_json(policy: Policy, log: PolicyLog) -> dict[str, Any]:
    """Return `policy` as data with its version, where and when it was published (absent for the builtin one), and what it has
    learned, without the payload (absent before the first version).
    """
    published = log.published(policy.version)
    place = {} if published is None else {"offset": published.offset, "time_ms": published.time_ms}
    entry = log.learned(policy)
    learned = {} if entry is None else {"learned": {"time_ms": entry.time_ms, **msgspec.to_builtins(entry.record)}}
    return {"version": policy.version, **place, **msgspec.to_builtins(policy), **learned}


def policy_table(policy: Policy, log: PolicyLog, role: str) -> Table:
    """Return everything that `policy` says."""
    table = Table(title=f"{policy.version}: {role}", title_justify="left", show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    published = log.published(policy.version)
    if published is not None:
        table.add_row("published", f"{when(published.time_ms)}, offset {published.offset}")
    for name, text in learned_rows(policy, log):
        table.add_row(name, Text(text))
    for name, value in contents(policy).items():
        table.add_row(name, Text(text_of(value)))
    return table


def learned_rows(policy: Policy, log: PolicyLog) -> list[tuple[str, str]]:
    """Return what `policy` has learned, line by line; none for one that does not learn."""
    if not isinstance(policy.rule, LearningRule):
        return []
    entry = log.learned(policy)
    if entry is None or not isinstance(entry.record, Learned):
        return [
            ("learned", "nothing yet: it prices by what it assumes until `pricetide learn` has published a version")
        ]
    known = entry.record
    left = ", ".join(f"{count} {why}" for why, count in known.left.items())
    rows = [
        (
            "learned",
            f"version {known.version} of {when(entry.time_ms)}: {known.outcomes} outcomes up to {when(known.resolved_ms)}",
        ),
        ("learned.digest", known.digest),
        ("learned.left", f"{left or 'none'}; {known.stragglers} came late from their partition"),
    ]
    if policy.rule.money.discount_budget is not None:
        rows.append(("learned.discount_weight", f"{known.discount_weight:.6g} (lambda of the discount budget)"))
    return rows


def force_json(log: PolicyLog) -> dict[str, Any]:
    """Return what holds now as data: kill switch, current policy, fallback."""
    book, switch = log.book, log.kill_switch()
    reason = switch.record.reason if switch is not None and isinstance(switch.record, KillSwitch) else ""
    fallback = fallback_of(log)
    return {
        "kill_switch": {"on": book.kill_switch, "reason": reason, "time_ms": switch.time_ms if switch else None},
        "current": policy_json(book.current, log),
        "current_since_ms": getattr(log.in_force(), "time_ms", None),
        "fallback": None if fallback is None else policy_json(fallback, log),
        "shadow": None if log.book.shadow is None else log.book.shadow.version,
    }


def force_page(log: PolicyLog) -> RenderableType:
    """Return what holds now, for people."""
    current, switch, pointer = log.book.current, log.kill_switch(), log.in_force()
    parts: list[RenderableType] = []
    if log.book.kill_switch and switch is not None and isinstance(switch.record, KillSwitch):
        why = f" ({switch.record.reason})" if switch.record.reason else ""
        parts.append(
            Text(f"The kill switch is on since {when(switch.time_ms)}{why}: everybody pays list price.", "bold red")
        )
    since = f" since {when(pointer.time_ms)}" if pointer is not None else ""
    role = "sets prices when the kill switch is off" if log.book.kill_switch else f"sets prices{since}"
    if current is BUILTIN and pointer is None:
        role += "; none is published"
    parts.append(policy_table(current, log, role))
    fallback = fallback_of(log)
    if fallback is not None:
        parts.append(policy_table(fallback, log, f"prices where model {current.model} is not in force"))
    if log.book.shadow is not None:
        parts.append(Text(f"{log.book.shadow.version} decides beside it as a shadow: nobody is charged by it."))
    return Group(*parts)


def fallback_of(log: PolicyLog) -> Policy | None:
    """Return what prices where another model than that of the current policy is in force; None if it needs none."""
    fallback = log.book.in_force(None)
    return None if fallback is log.book.current else fallback


def is_learned(entry: Entry) -> bool:
    """Return whether a record is of what a policy has learned: there are far more of them than of all others."""
    return isinstance(entry.record, Learned | CurrentLearned) or b"/learned" in (entry.key or b"")


def history_page(log: PolicyLog, learned: bool = False) -> Table:
    """Return every record in order, the present ones marked; those of what was learned only with `learned`."""
    table = Table(title="policies, oldest first", title_justify="left")
    for column in ("offset", "time (UTC)", "record", "", ""):
        table.add_column(column, justify="right" if column == "offset" else "left", overflow="fold")
    for entry in log.entries:
        if is_learned(entry) and not learned:
            continue
        note = (
            f"refused: {entry.refused}" if entry.refused else f"in place of {entry.replaces}" if entry.replaces else ""
        )
        row = (str(entry.offset), when(entry.time_ms)[:-4], Text(entry.title), Text(note), mark(entry, log))
        table.add_row(*row, style="bold" if row[-1] else None)
    return table


def history_json(log: PolicyLog, learned: bool = False) -> list[dict[str, Any]]:
    """Return every record in order as data; those of what was learned only with `learned`."""
    return [
        {
            "offset": entry.offset,
            "time_ms": entry.time_ms,
            "title": entry.title,
            "replaces": entry.replaces,
            "refused": entry.refused or None,
            "mark": mark(entry, log) or None,
            "record": None if entry.record is None else msgspec.to_builtins(entry.record),
        }
        for entry in log.entries
        if learned or not is_learned(entry)
    ]


def mark(entry: Entry, log: PolicyLog) -> str:
    """Return `current` at the version that is and at the record that says so, `on` at a kill switch that is."""
    if entry is log.kill_switch() and log.book.kill_switch:
        return "on"
    if entry in (log.in_force(), log.published(log.book.current.version)) and not entry.refused:
        return "current"
    return ""


def when(time_ms: int) -> str:
    """Return a time for people."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
