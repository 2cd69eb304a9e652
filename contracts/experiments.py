"""Experiments: which users are priced by which policy, so that policies can be compared. Records of the policies topic.

Two kinds of record: a version of an experiment (key `experiment/NAME/N`), and which versions run (key `experiments`).
The unit is the user: assignment is a hash of the user id (pricing.assignment), nothing is stored. A later version of
an experiment is a ramp: it differs in `coverage`, which never falls, and in `stop_ms`; so nobody ever changes variant.
Experiments that run at once share a namespace, in which their ranges are disjoint: a user is in one of them at most.
Not here: what comes of an experiment (backtest.experiment_report).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from contracts.errors import BadReference
from contracts.versions import Name, PolicyVersion, Version, split_version

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Metric = Literal["revenue", "margin"]
Watched = Literal["revenue", "margin", "conversion", "consent"]
"""Per user, and more is better: revenue and margin in minor units; conversion: bought something, 0 or 1; consent: did not
withdraw it, 0 or 1."""
KEY = b"experiments"


class Variant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One arm."""

    name: Name
    weight: Annotated[float, Meta(gt=0.0, le=1.0)]
    """Share of the covered users."""
    policy: PolicyVersion
    """What prices them."""


class Namespace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A slice of all users: those whose hash under `name` lies in start <= n < end."""

    name: Name
    start: Share
    end: Share

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ValueError("namespace.start must lie below namespace.end")


class Guardrail(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric that no variant may harm."""

    metric: Watched
    worse_by: Share = 0.0
    """The loss that is still tolerated, as a share of the control's mean."""


class Experiment(Struct, frozen=True, kw_only=True, tag_field="record", tag="experiment", forbid_unknown_fields=True):
    """One version of an experiment; never rewritten. Times in ms of event time."""

    name: Name
    number: Annotated[int, Meta(ge=1)]
    variants: Annotated[tuple[Variant, ...], Meta(min_length=2, max_length=8)]
    control: Name
    """The variant that the others are compared with."""
    seed: Annotated[str, Meta(max_length=128)] = ""
    """Of the hash; empty: the name. Another seed is another random assignment."""
    namespace: Namespace | None = None
    """None: all users, and no other experiment runs."""
    coverage: Share = 1.0
    """Share of each variant's users who are in. Raising it adds users and moves none."""
    holdout: Annotated[float, Meta(ge=0.0, le=0.5)] = 0.05
    """Share of the covered users, drawn from every variant alike, who pay list price. 5 to 10 % is the custom; 0: none."""
    start_ms: Annotated[int, Meta(ge=0)] = 0
    """Earlier events are priced without the experiment."""
    stop_ms: Annotated[int, Meta(ge=0)] | None = None
    """So are events from here on; None: until it is stopped."""
    metric: Metric = "revenue"
    """What the verdict is about, per user."""
    alpha: Annotated[float, Meta(gt=0.0, lt=0.5)] = 0.05
    """Chance of a wrong claim about `metric`, over all looks at the data; shared among the treatments."""
    horizon_ms: Annotated[int, Meta(gt=0)] | None = None
    """What a user does counts for so long after the first draw, and the user counts when that time is over: then users are
    alike whenever they came, and looks at any time are safe. None: everything so far counts."""
    users_min: Annotated[int, Meta(ge=2)] = 100
    """No claim is made before every arm has so many users: the confidence sequences are asymptotic."""
    tightest_at: Annotated[int, Meta(ge=1)] = 5_000
    """Users of a comparison at which its confidence sequence is tightest; valid at any number of them."""
    guardrails: tuple[Guardrail, ...] = ()
    promote: Literal["by_hand", "when_better"] = "by_hand"
    """Whether `pricetide experiment report --act` may make the winner's policy current."""

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names) or "holdout" in names:
            raise ValueError("variants must have different names, and none is called holdout")
        if self.control not in names:
            raise ValueError(f"control must name one of the variants: {', '.join(names)}")
        total = sum(variant.weight for variant in self.variants)
        if abs(total - 1.0) > 1e-9:
            raise ValueError(f"the weights of the variants must sum to 1, they sum to {total:.10g}")
        if self.stop_ms is not None and self.stop_ms <= self.start_ms:
            raise ValueError("stop_ms must lie after start_ms")

    @property
    def version(self) -> str:
        """What decisions are stamped with."""
        return f"{self.name}@{self.number}"

    @property
    def hash_seed(self) -> str:
        """The seed of the hash that chooses variants."""
        return self.seed or self.name


class RunningExperiments(
    Struct, frozen=True, kw_only=True, tag_field="record", tag="experiments", forbid_unknown_fields=True
):
    """Names the experiments that run from now on, all of them."""

    experiments: tuple[Version, ...] = ()


ExperimentRecord = Experiment | RunningExperiments


def experiment_key(record: ExperimentRecord) -> bytes:
    """Return the record key: `experiment/name/number` or `experiments`."""
    if isinstance(record, Experiment):
        return f"experiment/{record.name}/{record.number}".encode()
    return KEY


class ExperimentBook:
    """The fold of the experiment records: every version, and which run. Policies are the caller's to check."""

    __slots__ = ("_versions", "running")

    def __init__(self) -> None:
        self._versions: dict[tuple[str, int], Experiment] = {}
        self.running: tuple[Experiment, ...] = ()

    def versions(self, name: str | None = None) -> list[Experiment]:
        """Return the versions of `name`, or all of them, by name and number."""
        return [one for key, one in sorted(self._versions.items()) if name in (None, key[0])]

    def publish(self, record: Experiment) -> None:
        """Take a version.

        Raises:
            BadReference: the version is there and differs, or is no ramp of the one before; nothing has changed.
        """
        known = self._versions.get((record.name, record.number), record)
        if known != record:
            raise BadReference(f"Experiment {record.version} is published already and differs: publish the next number")
        for other in self.versions(record.name):
            early, late = sorted((other, record), key=lambda one: one.number)
            _require_ramp(early, late)
        self._versions[record.name, record.number] = record

    def run(self, record: RunningExperiments) -> None:
        """Take which versions run.

        Raises:
            BadReference: one is not there, or two of them could have the same user; nothing has changed.
        """
        running = [self._find(version) for version in record.experiments]
        _require_apart(running)
        self.running = tuple(running)

    def remove(self, name: str, number: int) -> None:
        """Forget a version; if it runs, it runs on."""
        self._versions.pop((name, number), None)

    def _find(self, version: str) -> Experiment:
        found = self._versions.get(split_version(version))
        if found is None:
            raise BadReference(f"Experiment {version} is not on the topic: publish it first")
        return found


def _require_ramp(early: Experiment, late: Experiment) -> None:
    like = replace(early, number=late.number, coverage=late.coverage, stop_ms=late.stop_ms)
    if like != late:
        fields: Mapping[str, object] = {name: getattr(like, name) for name in like.__struct_fields__}
        names = [name for name, value in fields.items() if value != getattr(late, name)]
        raise BadReference(
            f"Experiment {late.version} differs from {early.version} in {', '.join(names)}: users would change variant, or "
            "the rules of the verdict under way. Give a new experiment a new name"
        )
    if late.coverage < early.coverage:
        raise BadReference(
            f"Experiment {late.version} covers {late.coverage:g} of its users, {early.version} {early.coverage:g}: a ramp only "
            "adds users. Stop the experiment instead"
        )


def _require_apart(running: Sequence[Experiment]) -> None:
    names = [one.name for one in running]
    if len(set(names)) < len(names):
        raise BadReference("Two versions of one experiment cannot run at once: name the later one")
    spaces = [one.namespace for one in running]
    if len(running) > 1 and (None in spaces or len({space.name for space in spaces if space is not None}) > 1):
        raise BadReference(
            f"{', '.join(names)} run at once, so they must have one namespace with a range each, or a user could be in two"
        )
    ranges = sorted((space.start, space.end, one.name) for space, one in zip(spaces, running, strict=True) if space)
    for (_, end, first), (start, _, second) in pairwise(ranges):
        if start < end:
            raise BadReference(f"The namespace ranges of {first} and {second} overlap: give them disjoint ones")
