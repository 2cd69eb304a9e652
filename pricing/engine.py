"""The engine: a batch of ordered records and the states of their users in, new states, prices and decisions out. Pure.

Worker and backtest call `Engine.step`, and nothing else decides a price. Any split of the same records into batches gives
the same bytes: a record sees only its user's state, the versions of catalogue and policies, and the partition's count
and watermark; caches hold what could be computed anew. Not here: the order of records (contracts.merge), which of them
are refused (contracts.intake), where a state is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct

from contracts.catalogue import Catalogue
from contracts.errors import BadEvent, BrokenInvariant
from contracts.intake import Inbound, refuse
from contracts.policies import PolicyBook
from contracts.semantics import Semantics, Topology
from pricing.draws import uniforms
from pricing.menus import MenuShelf
from pricing.records import Place, Record, Recorder
from pricing.run import Run

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
    """What a batch leads to; prices and decisions are (key, value) in applied order."""

    states: dict[bytes, bytes]
    """User key -> new state, of the users that the batch changed."""
    prices: list[Record]
    decisions: list[Record]
    dead: list[tuple[Inbound, BadEvent]]
    partition: PartitionState
    counts: dict[str, int]
    """For metrics: `event:<type>`, `outcome:<outcome>`, `status:<status>`, `rail:<rail>`, `binding_rule:<rule>`,
    `intent:<level>`, `implausible`, and `expired` for states that read as empty."""


class EventCrash(BrokenInvariant):
    """Applying the record at (source, offset) raised; the error itself is the cause. Nothing of the batch holds."""

    def __init__(self, source: int, offset: int) -> None:
        super().__init__(
            f"Applying the record at offset {offset} of source {source} raised: report it with the traceback"
        )
        self.source = source
        self.offset = offset


class Engine:
    """Applies the records of one partition. Keeps nothing between steps but caches."""

    __slots__ = ("_menus", "_places", "_semantics")

    def __init__(
        self, semantics: Semantics, topology: Topology, partition: int, menus: MenuShelf | None = None
    ) -> None:
        self._semantics = semantics
        self._places = [Place(semantics, topology, partition, source) for source in range(len(topology.sources))]
        self._menus = MenuShelf() if menus is None else menus

    def step(
        self,
        batch: Sequence[Inbound],
        load: Load,
        before: PartitionState,
        catalogue: Catalogue,
        policies: PolicyBook,
        isolated: Isolated = _NONE,
    ) -> Step:
        """Apply `batch`, in order.

        Args:
            batch: records of one partition in merged order.
            load: gives a user's stored state by key; called at most once per user.
            before: what the last step of this partition returned.
            catalogue: read only.
            policies: read only.
            isolated: (source, offset) -> traceback, of records that have crashed too often.

        Raises:
            EventCrash: applying a record raised.
        """
        policy = policies.current
        recorder = Recorder(self._places, policy.version, policies.seen, catalogue.seen)
        run = Run(self._semantics, self._places, self._menus.of(policy), recorder, catalogue, policies.kill_switch)
        run.applied, run.watermark_ms = before.applied, before.watermark_ms
        ids = [
            self._places[inbound.source].id_of(inbound.offset, getattr(inbound.event, "item", "")) for inbound in batch
        ]
        for inbound, decision_id, u in zip(batch, ids, uniforms(policy.seed, ids), strict=True):
            crash = isolated.get((inbound.source, inbound.offset)) if isolated else None
            error = inbound.error if crash is None else refuse("crashed", crash.strip().rpartition("\n")[2])
            if error is not None:
                run.bury(inbound, error)
                continue
            state = run.state_of(inbound, load)
            try:
                run.apply(inbound, state, decision_id, u)
            except Exception as bug:
                raise EventCrash(inbound.source, inbound.offset) from bug
        after = PartitionState(run.applied, run.watermark_ms)
        return Step(run.encoded(), recorder.prices, recorder.decisions, run.dead, after, run.counted())
