"""What lies on the policies topic: every record in order, whether workers take it, and the book that comes of them.

Workers keep the book alone (streams.reference); this is for people. Compaction keeps the last record of each key: every
version, but of the changes of the current policy and of the kill switch only the latest for sure. Publishes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from contracts.errors import REFUSED, BadInput
from contracts.experiments import Experiment, RunningExperiments
from contracts.learned import CurrentLearned, Learned
from contracts.policies import BUILTIN, CurrentPolicy, KillSwitch, Policy, PolicyBook, PolicyRecord, ShadowPolicy
from streams.broker import committed_records
from streams.settings import Settings

REPLACES_HEADER = "replaces"
"""Of a record that makes a policy current: the version that was before. Outlives that one's record under compaction."""


class Entry(Struct, frozen=True, kw_only=True):
    """One record of the topic."""

    offset: int
    time_ms: int
    key: bytes | None
    record: PolicyRecord | None = None
    """None: a removal, or no record that this release can read. What was learned stands here without its payload."""
    replaces: str | None = None
    """The version that was current before, as the one who published this said."""
    refused: str = ""
    """Why workers do not take it; empty if they do."""

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        key = (self.key or b"").decode(errors="replace")
        if self.record is None:
            return f"unusable record {key!r}" if self.refused else f"removal of {key}"
        return title(self.record)


class PolicyLog:
    """The records of the policies topic and their fold."""

    def __init__(self, records: Iterable[Any] = ()) -> None:
        """Fold `records` (with offset, timestamp, key, value, headers), in offset order."""
        self.entries: list[Entry] = []
        self.book = PolicyBook()
        self.versions: dict[str, Policy] = {}
        """What workers can price by, in the order of publication."""
        self._numbers: dict[str, int] = {}
        """The highest number that each name has had."""
        for record in records:
            self._add(record)

    def _add(self, record: Any) -> None:  # noqa: ANN401 - kafka-python ships no types
        known, refused = None, ""
        try:
            known = self.book.apply(record.offset, record.key, record.value)
        except REFUSED as error:
            refused = str(error)
        if isinstance(known, Learned):  # there are thousands; the book has the payloads of the last ones
            known = replace(known, payload="")
        replaces = (dict(record.headers or ()).get(REPLACES_HEADER) or b"").decode(errors="replace")
        self.entries.append(
            Entry(offset=record.offset, time_ms=record.timestamp, key=record.key, record=known,
                  replaces=replaces or None, refused=refused)
        )  # fmt: skip
        name, _, number = (record.key or b"").decode(errors="replace").rpartition("/")
        if number.isdecimal():
            self._numbers[name] = max(self._numbers.get(name, 0), int(number))
        if isinstance(known, Policy):
            self.versions.setdefault(known.version, known)
        elif known is None and not refused:
            self.versions.pop(f"{name}@{number}", None)

    def policy(self, version: str) -> Policy:
        """Return the policy of `version`: NAME@N, or NAME for its newest, or `builtin`.

        Raises:
            BadInput: there is none; the message names those that there are.
        """
        found = BUILTIN if version == BUILTIN.version else self.versions.get(version) or self.newest(version)
        if found is None:
            known = ", ".join(self.versions) or "none yet: publish one with `pricetide policy apply FILE.toml`"
            raise BadInput(f"There is no policy {version!r} on the topic; there is {known}")
        return found

    def newest(self, name: str) -> Policy | None:
        """Return the version of `name` with the highest number, None if there is none."""
        named = [one for one in self.versions.values() if one.name == name]
        return max(named, key=lambda one: one.number, default=None)

    def next_number(self, name: str) -> int:
        """Return the number after every one that `name` has had; of those removed, as far as the topic still shows them."""
        return self._numbers.get(name, 0) + 1

    def published(self, version: str) -> Entry | None:
        """Return the first record of `version`, None for one that is not there, as `builtin`."""
        return next(
            (one for one in self.entries if isinstance(one.record, Policy) and one.record.version == version), None
        )

    def in_force(self) -> Entry | None:
        """Return the record that made the current policy current, None while the builtin one is because nothing was published."""
        return next((one for one in self._taken() if isinstance(one.record, CurrentPolicy)), None)

    def kill_switch(self) -> Entry | None:
        """Return the last record of the kill switch, None if it was never thrown."""
        return next((one for one in self._taken() if isinstance(one.record, KillSwitch)), None)

    def learned(self, policy: Policy) -> Entry | None:
        """Return the record of the version in force of what `policy` has learned, None before the first."""
        known = self.book.knowledge_of(policy)
        if known is None:
            return None
        wanted = replace(known, payload="")
        return next((one for one in self._taken() if one.record == wanted), None)

    def before(self) -> str | None:
        """Return the version that was current before the current one, None where that is no longer known."""
        pointers = [one for one in self._taken() if isinstance(one.record, CurrentPolicy)]
        now = self.book.current.version
        for pointer in pointers:
            if version_of(pointer.record) != now:
                return version_of(pointer.record)
            if pointer.replaces not in (None, now):
                return pointer.replaces
        return None

    def _taken(self) -> Iterator[Entry]:
        """Yield what workers took, newest first."""
        return (one for one in reversed(self.entries) if not one.refused)


def title(record: PolicyRecord) -> str:
    """Return what `record` is, in a few words."""
    if isinstance(record, KillSwitch):
        text = f"kill switch {'on' if record.on else 'off'}{f': {record.reason}' if record.reason else ''}"
    elif isinstance(record, ShadowPolicy):
        text = f"shadow: {record.policy or 'none'}"
    elif isinstance(record, RunningExperiments):
        text = f"running: {', '.join(record.experiments) or 'no experiment'}"
    elif isinstance(record, Experiment):
        text = f"experiment {record.version}"
    elif isinstance(record, Learned):
        text = f"learned by {record.policy}: version {record.version}"
    elif isinstance(record, CurrentLearned):
        text = f"learned by {record.name}@{record.number}, current: version {record.version}"
    else:
        text = f"{'version' if isinstance(record, Policy) else 'current:'} {version_of(record)}"
    return text


def version_of(record: PolicyRecord | None) -> str:
    """Return NAME@N, or `builtin`, of a version or of what names one; empty for anything else."""
    return record.version if isinstance(record, Policy | CurrentPolicy) else ""


def read_policy_log(settings: Settings) -> PolicyLog:
    """Return what lies on the policies topic now.

    Raises:
        BadSettings: there is no such topic. BrokerUnavailable: the broker does not answer.
    """
    return PolicyLog(committed_records(settings, [settings.topics.policies]))
