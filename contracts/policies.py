"""Policies: how prices are chosen and inside which rails, as versions on a compacted topic; and the kill switch.

Kinds of record that share the topic: a policy version (key `name/number`), which policy is current (key `current`), which
decides beside it for nobody (key `shadow`), the kill switch (key `killswitch`), experiments (contracts.experiments), and what
policies have learned (contracts.learned). The fold of the records is `PolicyBook`. Not here: what a policy computes (pricing).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from contracts.errors import BadReference
from contracts.experiments import Experiment, ExperimentBook, RunningExperiments, experiment_key
from contracts.learned import CurrentLearned, Learned, LearnedBook, learned_key
from contracts.nesting import shallow
from contracts.rules import Greedy, LearningRule, LinearQ, Sarsa, Thompson
from contracts.versions import Name, PolicyVersion, Version, split_version

Permille = Annotated[int, Meta(ge=0, le=10_000)]


class Rails(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of a personal offer besides the item's own (floor, ceiling, MAP). Shares of list price in permille."""

    multipliers: tuple[Permille, ...] = (650, 700, 750, 800, 850, 900, 950, 1000, 1050, 1100, 1150, 1200)
    """The full lattice: list price times each, and the charm price just below each. Reaches above list."""
    margin_min_permille: Permille = 80
    """Least margin over cost."""
    band_low_permille: Permille = 750
    band_high_permille: Annotated[int, Meta(ge=1000, le=10_000)] = 1_100
    """Static band of an item's prices: bounds max/min over all users (dispersion)."""
    step_max_permille: Permille = 150
    """Most change from the user's last price of the item (list price if there is none)."""
    dwell_ms: Annotated[int, Meta(gt=0)] = 1_800_000
    """How long an offer stays open, its price unchanged."""
    charm_endings: tuple[Annotated[int, Meta(ge=0, le=99)], ...] = (99, 95, 49)
    """Last two digits a personal price may have; empty allows all."""
    raise_markets: tuple[str, ...] = ()
    """Markets in which a personal price may exceed list. Empty: discount-only everywhere."""

    def __post_init__(self) -> None:
        if list(self.multipliers) != sorted(set(self.multipliers)) or 1000 not in self.multipliers:
            raise ValueError("rails.multipliers must ascend without repeats and contain 1000 (the list price)")
        if not 1 <= len(self.multipliers) <= 64:
            raise ValueError("rails.multipliers must name 1 to 64 points")
        if not 0 < self.band_low_permille <= 1000:
            raise ValueError("rails.band_low_permille must lie in 1..1000: list price is always feasible")


class ListPrice(Struct, frozen=True, kw_only=True, tag_field="kind", tag="list_price", forbid_unknown_fields=True):
    """Everybody pays list price."""


class SessionIntent(
    Struct, frozen=True, kw_only=True, tag_field="kind", tag="session_intent", forbid_unknown_fields=True
):
    """Discount by the intent of this session: the stronger, the smaller. Never by tenure, frequency or spend."""

    discounts_permille: tuple[Permille, ...] = (250, 200, 150, 100, 50, 0)
    """Target discount at intent level 0, 1, 2, ...; the last holds beyond. Must not increase."""
    explore: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.1
    """Share of draws spread evenly over the feasible lattice; gives every feasible price a positive propensity."""

    def __post_init__(self) -> None:
        if not self.discounts_permille or list(self.discounts_permille) != sorted(
            self.discounts_permille, reverse=True
        ):
            raise ValueError("discounts_permille must not be empty nor increase: stronger intent, smaller discount")


class FixedPrice(Struct, frozen=True, kw_only=True, tag_field="kind", tag="fixed_price", forbid_unknown_fields=True):
    """One multiplier for everybody: the best one in hindsight is the bar that personal prices have to clear."""

    multiplier_permille: Annotated[int, Meta(ge=1, le=10_000)]
    explore: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.0


class UniformRandom(Struct, frozen=True, kw_only=True, tag_field="kind", tag="uniform", forbid_unknown_fields=True):
    """Every feasible price alike: what a log for evaluation is best made of, and costs most."""


PlainRule = ListPrice | FixedPrice | SessionIntent | UniformRandom
Rule = ListPrice | FixedPrice | SessionIntent | UniformRandom | Thompson | Greedy | LinearQ | Sarsa


def _version_of(name: str, number: int) -> str:
    return f"{name}@{number}" if name != "builtin" else name


class Policy(Struct, frozen=True, kw_only=True, tag_field="record", tag="policy", forbid_unknown_fields=True):
    """One version of a policy; never rewritten."""

    name: Name
    number: Annotated[int, Meta(ge=1)]
    seed: Annotated[int, Meta(ge=0, le=(1 << 53) - 1)] = 0
    """Keys the counter-based generator together with the decision id."""
    rule: Rule
    rails: Rails = Rails()
    model: str | None = None
    """Digest of the artifact that it was made for; None: it prices with any model, and without one."""
    fallback: Version | None = None
    """The version that prices wherever another model is in force, or none; on the topic before this one, and without a
    model of its own. Required with `model`, and only then."""

    def __post_init__(self) -> None:
        if (self.model is None) != (self.fallback is None):
            raise ValueError("model and fallback go together: what is made for one model says what prices without it")

    @property
    def version(self) -> str:
        """What decisions are stamped with."""
        return _version_of(self.name, self.number)


class CurrentPolicy(Struct, frozen=True, kw_only=True, tag_field="record", tag="current", forbid_unknown_fields=True):
    """Names the policy version that prices from now on; `builtin`, number 1, is the one that holds while none is named."""

    name: Name
    number: Annotated[int, Meta(ge=1)]

    @property
    def version(self) -> str:
        """What decisions are stamped with."""
        return _version_of(self.name, self.number)


class ShadowPolicy(Struct, frozen=True, kw_only=True, tag_field="record", tag="shadow", forbid_unknown_fields=True):
    """Names the policy version that decides every draw once more, from the same state, for nobody: its decisions go to a
    topic of their own (pricing.shadow).
    """

    policy: PolicyVersion | None
    """None: none does."""


class KillSwitch(Struct, frozen=True, kw_only=True, tag_field="record", tag="killswitch", forbid_unknown_fields=True):
    """On: everybody pays list price, whatever the policy."""

    on: bool
    reason: Annotated[str, Meta(max_length=512)] = ""


PolicyRecord = (
    Policy | CurrentPolicy | ShadowPolicy | KillSwitch | Experiment | RunningExperiments | Learned | CurrentLearned
)
BUILTIN = Policy(name="builtin", number=1, rule=SessionIntent())

decode_policy = shallow(msgspec.json.Decoder(PolicyRecord).decode)
_encode = msgspec.json.Encoder().encode


def encode_policy(record: PolicyRecord) -> bytes:
    """Return the JSON bytes of `record`."""
    return _encode(record)


def policy_key(record: PolicyRecord) -> bytes:
    """Return the record key: `name/number`, `current`, `shadow`, `killswitch`, or as in contracts.experiments and .learned."""
    if isinstance(record, Experiment | RunningExperiments):
        return experiment_key(record)
    if isinstance(record, Learned | CurrentLearned):
        return learned_key(record)
    if isinstance(record, Policy):
        return f"{record.name}/{record.number}".encode()
    return _KEYS[type(record)]


_KEYS: dict[type, bytes] = {CurrentPolicy: b"current", ShadowPolicy: b"shadow", KillSwitch: b"killswitch"}


class PolicyBook:
    """The fold of the policies topic: every version, which one is current, the kill switch, the experiments, what was learned."""

    __slots__ = (
        "_arms",
        "_fallback",
        "_shadow",
        "_versions",
        "current",
        "experiments",
        "kill_switch",
        "learned",
        "seen",
    )

    def __init__(self) -> None:
        self._versions: dict[tuple[str, int], Policy] = {}
        self._fallback = BUILTIN
        """Prices where the current policy was made for another model."""
        self.current: Policy = BUILTIN
        self.kill_switch = False
        self.experiments = ExperimentBook()
        self.learned = LearnedBook()
        self._shadow: tuple[Policy, Policy] | None = None
        """What decides beside the current policy, and its fallback."""
        self._arms: dict[str, tuple[Policy, Policy]] = {}
        """Of the versions that variants of running experiments name: the policy, and its fallback."""
        self.seen = 0
        """Offset after the last record applied."""

    def apply(self, offset: int, key: bytes | None, value: bytes | None) -> PolicyRecord | None:
        """Apply one record of the policies topic, in offset order, and return it.

        Raises:
            msgspec.DecodeError, msgspec.ValidationError: no policy record; only `seen` has changed.
            BadReference: the record names a version that is not there, or rewrites one; only `seen` has changed.
        """
        self.seen = offset + 1
        if value is None:
            if key is not None and b"/" in key and not self.learned.remove(key):
                name, _, number = key.decode().rpartition("/")
                if name.startswith("experiment/"):
                    self.experiments.remove(name.partition("/")[2], int(number))
                else:
                    self._versions.pop((name, int(number)), None)
            return None
        record: PolicyRecord = decode_policy(value)
        self._apply(record)
        return record

    def in_force(self, model: str | None) -> Policy:
        """Return the policy that prices: the current one, or its fallback where that was made for another model.

        Args:
            model: digest of the artifact in force, None if there is none.
        """
        return self.current if self.current.model in (None, model) else self._fallback

    def find(self, version: str) -> Policy | None:
        """Return the policy of `version`, None if it is not on the topic."""
        return BUILTIN if version == BUILTIN.version else self._versions.get(split_version(version))

    def twin_of(self, policy: Policy) -> Policy | None:
        """Return the newest version on the topic that is `policy` but for its number; None if none is."""
        name = policy.name
        twins = [
            one for one in self._versions.values() if one.name == name and replace(policy, number=one.number) == one
        ]
        return max(twins, key=lambda one: one.number, default=None)

    def knowledge_of(self, policy: Policy) -> Learned | None:
        """Return what `policy` has learned, None: nothing yet."""
        return self.learned.of(policy.name, policy.number)

    def priced_by(self) -> list[Policy]:
        """Return every policy that may set a price now, whatever the model: the current one, variants', and their fallbacks."""
        arms = [policy for pair in self._arms.values() for policy in pair]
        return list({policy.version: policy for policy in (self.current, self._fallback, *arms)}.values())

    def of_variant(self, version: str, model: str | None) -> tuple[Policy, bool]:
        """Return what prices a variant of a running experiment, and whether that is the fallback of what it names.

        Args:
            version: the policy that the variant names.
            model: digest of the artifact in force, None if there is none.
        """
        policy, fallback = self._arms[version]
        fits = policy.model in (None, model)
        return (policy if fits else fallback), not fits

    @property
    def shadow(self) -> Policy | None:
        """The policy that decides beside the current one, None if none does."""
        return None if self._shadow is None else self._shadow[0]

    def shadow_under(self, model: str | None) -> tuple[Policy, bool] | None:
        """Return what decides as the shadow, and whether that is the fallback of what was named; None if nothing does.

        Args:
            model: digest of the artifact in force, None if there is none.
        """
        if self._shadow is None:
            return None
        policy, fallback = self._shadow
        fits = policy.model in (None, model)
        return (policy if fits else fallback), not fits

    def _apply(self, record: PolicyRecord) -> None:
        if isinstance(record, KillSwitch):
            self.kill_switch = record.on
        elif isinstance(record, ShadowPolicy):
            shadow = None if record.policy is None else self._find(record.policy, "The shadow record")
            self._shadow = None if shadow is None else (shadow, self._fallback_of(shadow))
        elif isinstance(record, Experiment):
            for variant in record.variants:
                self._find(variant.policy, f"Variant {variant.name} of experiment {record.version}")
            self.experiments.publish(record)
        elif isinstance(record, RunningExperiments):
            self._run(record)
        elif isinstance(record, Learned):
            rule = self._find(record.policy, f"Version {record.version} of what was learned").rule
            if not isinstance(rule, LearningRule):
                raise BadReference(f"Policy {record.policy} does not learn: stop whoever publishes what it has learned")
            self.learned.publish(record, rule)
        elif isinstance(record, CurrentLearned):
            self.learned.point(record)
        elif isinstance(record, Policy):
            self._fallback_of(record)
            known = self._versions.setdefault((record.name, record.number), record)
            if known != record:
                raise BadReference(f"Policy {record.version} is published already and differs: publish the next number")
        else:
            self._point(record)

    def _point(self, record: CurrentPolicy) -> None:
        named = (record.name, record.number)
        policy = self._versions.get(named, BUILTIN if named == (BUILTIN.name, BUILTIN.number) else None)
        if policy is None:
            raise BadReference(f"Policy {record.name}@{record.number} is not on the topic: publish it first")
        self._fallback = self._fallback_of(policy)
        self.current = policy

    def _run(self, record: RunningExperiments) -> None:
        before = self.experiments.running
        self.experiments.run(record)
        try:
            arms = {}
            for one in self.experiments.running:
                for variant in one.variants:
                    policy = self._find(variant.policy, f"Variant {variant.name} of experiment {one.version}")
                    arms[variant.policy] = (policy, self._fallback_of(policy))
        except BadReference:
            self.experiments.running = before
            raise
        self._arms = arms

    def _find(self, version: str, who: str) -> Policy:
        """Return a policy that somebody names."""
        policy = self.find(version)
        if policy is None:
            raise BadReference(f"{who} names policy {version}, which is not on the topic: publish that first")
        return policy

    def _fallback_of(self, policy: Policy) -> Policy:
        """Return what prices in the place of `policy`; the policy itself if it needs no model."""
        if policy.fallback is None:
            return policy
        fallback = self._versions.get(split_version(policy.fallback))
        if fallback is None:
            raise BadReference(
                f"Policy {policy.version} falls back to {policy.fallback}, which is not on the topic: publish that first"
            )
        if fallback.model is not None:
            raise BadReference(
                f"Policy {policy.version} falls back to {policy.fallback}, which was made for a model, too: name one that "
                "prices without"
            )
        return fallback
