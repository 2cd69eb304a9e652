"""The engine: a batch of ordered records and the states of their users in, new states, prices and decisions out. Pure.

Worker and backtest call `Engine.step`, and nothing else decides a price. Two passes over a batch, in order: every record
into its user's state (pricing.run), then every price (pricing.verdicts); between them the model reads the tokens of the
whole batch at once. Any split of the same records into batches gives the same bytes: a record sees only its user's state,
the versions of catalogue, policies and model, and the partition's count and watermark; caches hold what could be computed
anew. Not here: the order of records (contracts.merge), which of them are refused (contracts.intake), where a state is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct, field

from contracts.catalogue import Catalogue
from contracts.errors import BadEvent, BadSettings, BrokenInvariant
from contracts.intake import Inbound, refuse
from contracts.policies import PolicyBook
from contracts.rules import LearningRule
from contracts.semantics import Semantics, Topology
from features.vectors import Taste, TokenEncoder, tastes_of
from pricing.assignment import Lots
from pricing.draws import uniforms
from pricing.learned import KnownShelf, seen_of, sights_of
from pricing.menus import MenuShelf
from pricing.outcomes import Outcomes
from pricing.pending import DamagedDraw
from pricing.records import Place, Record, Recorder
from pricing.run import Asked, Run, Turn
from pricing.shadow import Shadow
from pricing.targets import TargetDraw, Targets
from pricing.timers import TimerChange, Timers
from pricing.treatments import Treatments
from pricing.verdicts import Court

Load = Callable[[bytes], bytes | None]
Isolated = Mapping[tuple[int, int], str]

_NONE: Isolated = MappingProxyType({})


class PartitionState(Struct, frozen=True):
    """What a partition knows besides its users."""

    applied: int = 0
    """Records applied, dead letters included; the last one's version."""
    watermark_ms: int = 0
    """Highest event time applied; dead letters have none."""


class Step(Struct):
    """What a batch leads to; prices, decisions and outcomes are (key, value) in applied order."""

    states: dict[bytes, bytes]
    """User key -> new state, of the users that the batch changed."""
    prices: list[Record]
    decisions: list[Record]
    dead: list[tuple[Inbound, BadEvent]]
    partition: PartitionState
    counts: dict[str, int]
    """For metrics: `event:<type>`, `outcome:<outcome>`, `status:<status>`, `rail:<rail>`, `binding_rule:<rule>`,
    `intent:<level>`, `implausible`, `expired` for states that read as empty, and `resolved:<kind>` for the kinds of outcomes:
    `bought`, `not_bought`, `price_mismatch`, `late`, and `shadow:<what>` for the draws that a shadow decided, too: `same_price`,
    `other_price`, `refused_item`."""
    outcomes: list[Record] = field(default_factory=list)
    pending: dict[bytes, bytes | None] = field(default_factory=dict)
    """Key -> new record of the pending draws that the batch changed, None for those to delete; stored as states are."""
    erased: dict[bytes, bytes | None] = field(default_factory=dict)
    """Of the users who asked to be forgotten: None for the states to delete, and key -> record of their erasures; stored
    as states are."""
    timers: TimerChange = field(default_factory=TimerChange)
    """For the partition's timers, when the batch has happened."""
    shadows: list[Record] = field(default_factory=list)
    """Decisions of the shadow policy, for a topic of their own; nothing else knows of them."""
    targets: list[TargetDraw] = field(default_factory=list)
    """What target policies would have drawn from, a draw each, in applied order; empty if nobody asked."""


class EventCrash(BrokenInvariant):
    """Applying the record at (source, offset) raised; the error itself is the cause. Nothing of the batch holds."""

    def __init__(self, source: int, offset: int) -> None:
        super().__init__(
            f"Applying the record at offset {offset} of source {source} raised: report it with the traceback"
        )
        self.source = source
        self.offset = offset


class Engine:
    """Applies the records of one partition. Keeps nothing between steps but caches. Owns its users in an encoder."""

    __slots__ = ("_known", "_lots", "_menus", "_places", "_semantics", "_treatments")

    def __init__(
        self, semantics: Semantics, topology: Topology, partition: int, menus: MenuShelf | None = None
    ) -> None:
        self._semantics = semantics
        self._places = [Place(semantics, topology, partition, source) for source in range(len(topology.sources))]
        self._menus = MenuShelf() if menus is None else menus
        self._known = KnownShelf()
        self._lots = Lots()
        self._treatments: Treatments | None = None

    def step(
        self,
        batch: Sequence[Inbound],
        load: Load,
        before: PartitionState,
        catalogue: Catalogue,
        policies: PolicyBook,
        isolated: Isolated = _NONE,
        encoder: TokenEncoder | None = None,
        timers: Timers | None = None,
        targets: Targets | None = None,
    ) -> Step:
        """Apply `batch`, in order.

        Args:
            batch: records of one partition in merged order.
            load: gives a user's stored state by key, called at most once per user; where there is none, the record of their
                erasure; and the records of pending draws.
            before: what the last step of this partition returned.
            catalogue: read only.
            policies: read only; holds what they have learned, too.
            isolated: (source, offset) -> traceback, of records that have crashed too often.
            encoder: the model, if there is one; it keeps this engine's users under the engine itself as their owner.
            timers: of the partition's pending draws, read only; without them there are no outcomes.
            targets: policies that are asked about every draw; they change no byte of anything else.

        Raises:
            EventCrash: applying a record raised, or deciding on it; the first such record of the batch.
            DamagedDraw, BadSettings: the store is damaged, or was written by a newer release.
            Exception: what `encoder` raises: a failure of the model is not one of a record.
        """
        model = None if encoder is None else encoder.digest
        policy = policies.in_force(model)
        treatments = self._treatments_of(policies, model)
        menus = self._menus.of(policy)[0] if treatments is None else treatments.menus
        run = Run(self._semantics, menus, catalogue, policies.kill_switch, encoder is not None, treatments)
        run.applied, run.watermark_ms = before.applied, before.watermark_ms
        crash = self._apply(batch, load, isolated, policy.seed, run, treatments)
        tastes = tastes_of(encoder.encode(self, run.tokens)) if encoder is not None and run.tokens else []
        if treatments is not None or isinstance(policy.rule, LearningRule):
            self._see(run, policies, tastes)
        recorder = Recorder(self._places, policy.version, model, policies.seen, catalogue.seen)
        draws = None
        if timers is not None and self._semantics.outcome_window_ms:
            draws = Outcomes(
                self._semantics, self._places, load, timers, before.applied, before.watermark_ms, policy.version, model
            )
        shadow = self._shadow(policies, model, recorder, run.turns, tastes)
        fallback = policy is not policies.current
        court = Court(
            self._semantics, self._places, menus, recorder, catalogue, tastes, fallback, draws, shadow, targets
        )
        self._judge(court, run.turns)
        if crash is not None:
            raise crash
        after = PartitionState(run.applied, run.watermark_ms)
        counts = court.counted() + run.counted()
        step = Step(run.encoded(), recorder.prices, recorder.decisions, run.dead, after, counts, erased=run.erased())
        if encoder is not None:
            for user in run.erasures:
                encoder.forget(self, user)
        if draws is not None:
            step.outcomes, step.pending, step.timers = draws.records, draws.changes(), draws.timer_change()
            counts.update(draws.counted())
        step.shadows, step.targets = recorder.shadows, court.wished(policies)
        return step

    @staticmethod
    def _judge(court: Court, turns: Sequence[Turn]) -> None:
        for turn in turns:
            try:
                court.judge(turn)
            except (DamagedDraw, BadSettings):
                raise
            except Exception as bug:
                raise EventCrash(turn.inbound.source, turn.inbound.offset) from bug

    def _shadow(
        self,
        policies: PolicyBook,
        model: str | None,
        recorder: Recorder,
        turns: Sequence[Turn],
        tastes: Sequence[Taste],
    ) -> Shadow | None:
        """Return the shadow of one batch, ready to decide; None while none does."""
        found = policies.shadow_under(model)
        menus = self._menus.shadow_of(None if found is None else found[0])
        if found is None or menus is None:
            return None
        policy, fallback = found
        learns = isinstance(policy.rule, LearningRule)
        known = self._known.of(policy, policies.knowledge_of(policy)) if learns else None
        shadow = Shadow(menus, fallback, recorder)
        shadow.prepare(turns, tastes, known)
        return shadow

    def _see(self, run: Run, policies: PolicyBook, tastes: Sequence[Taste]) -> None:
        """Give every ask of the batch that may be a draw what a learning policy sees of it: its variant's in an experiment."""
        asking: dict[int, list[Asked]] = defaultdict(list)
        for turn in run.turns:
            if isinstance(turn, Asked) and turn.rule is None and isinstance(turn.priced.policy.rule, LearningRule):
                asking[id(turn.priced.policy)].append(turn)
        for turns in asking.values():
            seen = [
                seen_of(turn.priced.list_price, turn.ask.intent, tastes[turn.token] if tastes else None)
                for turn in turns
            ]
            policy = turns[0].priced.policy
            known = self._known.of(policy, policies.knowledge_of(policy))
            for turn, sight in zip(turns, sights_of(known, seen), strict=True):
                turn.ask.sight = sight

    def _treatments_of(self, policies: PolicyBook, model: str | None) -> Treatments | None:
        """Return the treatments of users in experiments, None while no experiment runs."""
        if not policies.experiments.running:
            return None
        known = self._treatments
        if known is None or not known.hold(policies, model):
            known = self._treatments = Treatments(policies, model, self._menus, self._lots)
        return known

    def _apply(
        self,
        batch: Sequence[Inbound],
        load: Load,
        isolated: Isolated,
        seed: int,
        run: Run,
        treatments: Treatments | None,
    ) -> EventCrash | None:
        """Apply the records of `batch` to `run`, up to the first that raises; return its crash."""
        ids = [
            self._places[inbound.source].id_of(inbound.offset, getattr(inbound.event, "item", "")) for inbound in batch
        ]
        if treatments is not None:
            treatments.begin(ids)
        for inbound, decision_id, u in zip(batch, ids, uniforms(seed, ids), strict=True):
            crash = isolated.get((inbound.source, inbound.offset)) if isolated else None
            error = inbound.error if crash is None else refuse("crashed", crash.strip().rpartition("\n")[2])
            if error is not None:
                run.bury(inbound, error)
                continue
            state = run.state_of(inbound, load)
            try:
                run.apply(inbound, state, decision_id, u)
            except Exception as bug:  # not lost: raised when the records before it have had their turn
                stopped = EventCrash(inbound.source, inbound.offset)
                stopped.__cause__ = bug
                return stopped
        return None
