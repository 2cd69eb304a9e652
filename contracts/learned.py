"""What a policy has learned, as versions on the policies topic. Written by the policy's one learner, followed by every worker.

Two kinds of record: a version (key `NAME/NUMBER/learned/VERSION`, never rewritten) and which one is in force (key
`NAME/NUMBER/learned`). A version is in force from its own record on, until a later version or a pointer to another one: so
what decisions were made with can be told after compaction, too, which keeps one pointer only. Both are written in one
transaction, with the positions in the topic `outcomes` up to which the version has learned; it replaces nothing but what
lies between them and those of the version before. Not here: how anything is learned (pricing.lessons).
"""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from hashlib import sha256
from struct import pack
from typing import Annotated

from msgspec import Meta, Struct

from contracts.errors import BadReference
from contracts.rules import DISCOUNT_WEIGHT_MAX, DemandRule, LearningRule
from contracts.versions import Name

KEPT = 16
"""Versions of one policy that a book holds: as far back as a pointer can lead."""
_COUNT_BYTES, _FLOAT_BYTES = 8, 8
_KEY = re.compile(
    r"(?P<name>[a-z][a-z0-9_-]{0,63})/(?P<number>[1-9][0-9]{0,18})/learned(?:/(?P<version>[1-9][0-9]{0,18}))?"
)

Count = Annotated[int, Meta(ge=0)]


class BudgetPeriod(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The period of a discount budget that has not ended, so far."""

    period: int
    """Event time over the budget's period, rounded down."""
    discount: float
    """Sum over its purchases of the discount as a share of list price; they count whether or not they teach."""
    purchases: Count


class Learned(Struct, frozen=True, kw_only=True, tag_field="record", tag="learned", forbid_unknown_fields=True):
    """One version of what a policy has learned; at most 40 kB, and 9 with the features that are the default."""

    name: Name
    """Of the policy, and so is the number below."""
    number: Annotated[int, Meta(ge=1)]
    version: Annotated[int, Meta(ge=1)]
    """1, 2, 3, ..."""
    feature_version: Annotated[int, Meta(ge=1)]
    payload: str
    """Base64 of the exact bytes, little endian: the number of outcomes (8), then float64s. Of a demand model the mean and the
    upper triangle of the covariance by rows (pricing.demand), of values the weights by rows (pricing.q_linear)."""
    digest: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    """What decisions carry: SHA-256 of these bytes, followed by `discount_weight` as a float64 if that is not 0."""
    outcomes: Count
    """Learned from in all."""
    left: dict[str, int]
    """Outcomes gone past in all that taught nothing, by why (pricing.lessons)."""
    discount_weight: Annotated[float, Meta(ge=0.0, le=DISCOUNT_WEIGHT_MAX)] = 0.0
    """Lambda of the discount budget."""
    budget: BudgetPeriod | None = None
    positions: tuple[Count, ...]
    """Per partition of `outcomes`, the offset behind the last record that this version has gone past. Between two versions
    the order is that of (resolve time, partition, offset), where a partition's resolve time never falls."""
    begins: tuple[Count, ...]
    """From where a learner reads again what it must remember of users to go on."""
    resolved_ms: Count
    """The highest resolve time gone past."""
    stragglers: Count = 0
    """Outcomes in all that came after others of a higher resolve time had been learned, from another partition: without any,
    all versions are one pass in that order over the whole topic."""

    @property
    def policy(self) -> str:
        """The version of the policy."""
        return f"{self.name}@{self.number}"

    @property
    def content(self) -> bytes:
        """The exact bytes of the payload."""
        return a2b_base64(self.payload, strict_mode=True)


class CurrentLearned(
    Struct, frozen=True, kw_only=True, tag_field="record", tag="current_learned", forbid_unknown_fields=True
):
    """Names the version of what a policy has learned that it prices with from now on."""

    name: Name
    number: Annotated[int, Meta(ge=1)]
    version: Annotated[int, Meta(ge=1)]


LearnedRecord = Learned | CurrentLearned


def payload_of(content: bytes) -> str:
    """Return `content` as the text of a payload."""
    return b2a_base64(content, newline=False).decode()


def digest_of(content: bytes, discount_weight: float) -> str:
    """Return the digest of what was learned, 64 hexadecimal characters."""
    return sha256(content + (pack("<d", discount_weight) if discount_weight else b"")).hexdigest()


def learned_key(record: LearnedRecord) -> bytes:
    """Return the record key."""
    key = f"{record.name}/{record.number}/learned"
    return (f"{key}/{record.version}" if isinstance(record, Learned) else key).encode()


def require_fit(record: Learned, rule: LearningRule) -> None:
    """See that `record` is what the rule of its policy can have learned.

    Raises:
        BadReference: it was made with other features, is damaged, or is no belief.
    """
    width = rule.features.width
    if record.feature_version != rule.features.version:
        raise _misfit(
            record, f"was learned with features of version {record.feature_version}, not {rule.features.version}"
        )
    try:
        content = record.content
    except (NotBase64, ValueError):
        raise _misfit(record, "is no base64") from None
    size = 2 * width + width * (2 * width + 1) if isinstance(rule, DemandRule) else 3 * width
    if len(content) != _COUNT_BYTES + size * _FLOAT_BYTES:
        raise _misfit(record, f"has {len(content)} bytes, {_COUNT_BYTES + size * _FLOAT_BYTES} are {width} features'")
    if digest_of(content, record.discount_weight) != record.digest:
        raise _misfit(record, "is not what its digest says")
    if not is_sound(content, width if isinstance(rule, DemandRule) else 0):
        raise _misfit(record, "is not finite, or its covariance is not positive definite")


def _misfit(record: Learned, what: str) -> BadReference:
    return BadReference(
        f"Version {record.version} of what {record.policy} has learned {what}: the version before it holds on. Publish the "
        "policy under a new number to learn anew"
    )


def is_sound(content: bytes, width: int) -> bool:
    """Return whether prices can be made of the exact bytes of a payload of the right length: the one judgement of the learner
    that publishes a version, of the workers that follow it, and of whoever restores it.

    Args:
        content: as `Learned.payload` says.
        width: features of a demand model, 0 for values.

    Returns:
        Whether the numbers are finite and, of a demand model, the covariance positive definite in float64: its least
        eigenvalue above what rounding leaves of its largest, so that the variance of no draw comes out below zero.
    """
    import numpy as np

    numbers = np.frombuffer(content, dtype="<f8", offset=_COUNT_BYTES)
    if not np.isfinite(numbers).all():
        return False
    if not width:
        return True
    size = 2 * width
    covariance = np.zeros((size, size))
    covariance.T[np.triu_indices(size)] = numbers[size:]  # the lower triangle is all that is looked at
    spectrum = np.linalg.eigvalsh(covariance)
    return bool(spectrum[0] > size * np.finfo(np.float64).eps * spectrum[-1])


class LearnedBook:
    """The fold of these records: per policy the last KEPT versions, and which one is in force. Policies are the caller's."""

    __slots__ = ("_in_force", "_versions")

    def __init__(self) -> None:
        self._versions: dict[tuple[str, int], dict[int, Learned]] = {}
        self._in_force: dict[tuple[str, int], Learned] = {}

    def of(self, name: str, number: int) -> Learned | None:
        """Return the version in force of a policy, None before the first."""
        return self._in_force.get((name, number))

    def newest(self, name: str, number: int) -> Learned | None:
        """Return the highest version of a policy, where its learner goes on; None before the first."""
        versions = self._versions.get((name, number))
        return versions[max(versions)] if versions else None

    def publish(self, record: Learned, rule: LearningRule) -> None:
        """Take the next version of a policy with `rule`; from now on it is in force.

        Raises:
            BadReference: it does not fit, or is none that follows those that are there; nothing has changed.
        """
        policy = record.name, record.number
        versions = self._versions.get(policy, {})
        if versions and record.version <= max(versions) and versions.get(record.version) != record:
            raise BadReference(
                f"Version {record.version} of what {record.policy} has learned was published already, or follows version "
                f"{max(versions)}: its learner goes on from that one"
            )
        require_fit(record, rule)
        self._versions[policy] = versions
        versions[record.version] = record
        for old in sorted(versions)[:-KEPT]:
            del versions[old]
        self._in_force[policy] = record

    def point(self, record: CurrentLearned) -> None:
        """Take which version is in force.

        Raises:
            BadReference: it is not there, or too old; nothing has changed.
        """
        policy = record.name, record.number
        found = self._versions.get(policy, {}).get(record.version)
        if found is None:
            raise BadReference(
                f"Version {record.version} of what {record.name}@{record.number} has learned is not on the topic, or not "
                f"among its last {KEPT}: name one of these"
            )
        self._in_force[policy] = found

    def remove(self, key: bytes) -> bool:
        """Forget what a removal of `key` is about; if it is in force, it goes on. False: the key is none of these."""
        match = _KEY.fullmatch(key.decode(errors="replace"))
        if match is None:
            return False
        if match["version"]:
            self._versions.get((match["name"], int(match["number"])), {}).pop(int(match["version"]), None)
        return True
