"""Everything besides the input that decides bytes: two shells with equal Semantics and Topology publish equal prices.

Lives in a worker's settings and in a log's manifest. Does not hold rails or policies: those are inputs, with versions.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from contracts.errors import BadSettings

Kind = Literal["consent", "view", "click", "purchase"]
KINDS: tuple[Kind, ...] = ("consent", "view", "click", "purchase")

PositiveInt = Annotated[int, Meta(gt=0)]
Exposure = Literal["ids", "all"]


class Semantics(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the engine does with an event, as far as settings decide it. Times in ms of event time."""

    consent_default: bool
    """What holds for a user who never said anything: True prices them personally. Required: nobody else can know."""
    epoch: Annotated[int, Meta(ge=0)] = 0
    """Raised when topics are recreated, so that decision ids never repeat."""
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "USD"
    """ISO 4217. One deployment prices in one currency; an event in another one is a dead letter."""
    skew_max_ms: PositiveInt = 300_000
    """How far an event's time may lie after its arrival before it is a dead letter."""
    state_ttl_ms: PositiveInt = 35 * 86_400_000
    """A user not seen for this long (by the partition's watermark) reads as empty, but for consent. Covers 30 days at least."""
    history_events_max: Annotated[int, Meta(ge=1, le=1024)] = 128
    """Tokens kept for the user transformer: at two layers and a window of 64 the L(W-1)+1 = 127 that a rebuild reads, and
    one more, from whose time the first of them counts its gap."""
    recent_ids_max: Annotated[int, Meta(ge=1, le=1024)] = 64
    """Event ids remembered per user; a repeated id among them changes nothing."""
    offers_max: Annotated[int, Meta(ge=1, le=256)] = 24
    """Offers remembered per user, open ones and last prices."""
    event_bytes_max: PositiveInt = 16_384
    """A larger record is a dead letter."""
    session_gap_ms: PositiveInt = 1_800_000
    """Silence that ends a session."""
    events_per_minute_max: PositiveInt = 200
    """More events of one user in one minute are implausible traffic: priced, marked, never learned from."""
    price_deviation_max_permille: Annotated[int, Meta(gt=1000)] = 4_000
    """An event's price above list * this / 1000, or below list * 1000 / this, is implausible."""
    outcome_window_ms: Annotated[int, Meta(ge=0)] = 1_800_000
    """How long after a draw a purchase counts as its outcome (contracts.outcomes); 0: there are no outcomes."""
    exposure: Exposure = "all"
    """`ids`: the shop's views and clicks carry the decision id that they rendered, and draws that none of them names were not
    seen. `all`: it sends none, so every draw counts."""

    def __post_init__(self) -> None:
        if self.state_ttl_ms < 30 * 86_400_000:
            raise ValueError("state_ttl_ms must cover the longest window, 30 days (2592000000 ms)")
        if self.outcome_window_ms > self.state_ttl_ms:
            raise ValueError("outcome_window_ms must not exceed state_ttl_ms: a state must outlive its pending draws")


class Topology(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which topic carries which kind of event, and over how many partitions.

    Topics named twice carry several kinds: then Kafka's own order is the order among them. The rank of a topic is the
    place of its first kind: consent before view before click before purchase.
    """

    partitions: Annotated[int, Meta(gt=0, le=4096)]
    consents: str = "consents"
    views: str = "views"
    clicks: str = "clicks"
    purchases: str = "purchases"

    @property
    def sources(self) -> tuple[str, ...]:
        """The topic names in rank order, each once; a record's `source` is an index into this."""
        return tuple(dict.fromkeys((self.consents, self.views, self.clicks, self.purchases)))

    def source_of(self, kind: Kind) -> int:
        """Return the index into `sources` of the topic that carries `kind`."""
        names = {"consent": self.consents, "view": self.views, "click": self.clicks, "purchase": self.purchases}
        return self.sources.index(names[kind])

    def kinds_of(self, source: int) -> frozenset[str]:
        """Return the kinds that the topic `sources[source]` carries."""
        return frozenset(kind for kind in KINDS if self.source_of(kind) == source)


def require_equal(ours: Struct, theirs: Struct, where: str) -> None:
    """Raise BadSettings naming the first field in which two settings differ; `where` says whose `theirs` are."""
    for field in ours.__struct_fields__:
        mine, other = getattr(ours, field), getattr(theirs, field)
        if mine != other:
            raise BadSettings(f"{field} is {mine!r} here and {other!r} in {where}: make them equal")
