"""A made-up topic of outcomes: several partitions, users who come back, every reason not to learn. For tests of learning."""

from __future__ import annotations

from random import Random

from contracts.outcomes import Bought, LatePurchase, NextDraw, Outcome, OutcomeRecord

START_MS = 1_572_566_400_000
WINDOW_MS = 1_800_000
PRICES = (8_000, 8_500, 9_000, 9_500, 10_000)


def outcome(number: int = 0, user: str = "ann", **more: object) -> Outcome:
    """Return an outcome of a draw at 9.00 of 10.00 that was seen, with two features."""
    drawn_ms = more.pop("drawn_ms", START_MS + number)
    assert isinstance(drawn_ms, int)
    fields: dict[str, object] = {
        "draw_id": f"draw{number}", "user": user, "item": "lamp", "market": None, "currency": "USD", "price": 9_000,
        "list_price": 10_000, "cost": None, "policy": "p@1", "model": None, "preference": None, "catalogue_version": 0, "intent": 1,
        "prices": PRICES, "probabilities": (0.2,) * 5, "features": (1.0, 0.5), "feature_version": 1, "learned": None,
        "cost_source": "none", "propensity": 0.2, "forced": False, "drawn_ms": drawn_ms, "version": number,
        "resolved_ms": drawn_ms + WINDOW_MS, "exposure": "all", "exposed": True, "bought": None, "learnable": True,
        "unlearnable": (), "next": None,
    }  # fmt: skip
    return Outcome(**fields | more)  # type: ignore[arg-type]


def bought(price: int) -> Bought:
    return Bought(quantity=1, price=price, event_id="e", event_time_ms=START_MS)


def made_up_topic(seed: int, partitions: int, draws: int, users: int, width: int = 3) -> list[list[OutcomeRecord]]:
    """Return the records of each partition, in offset order: draws resolve in the order of the ends of their windows, late
    ones at once; chains of draws by a user; policies p@1, friend@1 (alike features) and stranger@1.
    """
    rnd = Random(seed)
    out: list[list[OutcomeRecord]] = [[] for _ in range(partitions)]
    for number in range(draws):
        user = rnd.randrange(users)
        late = rnd.random() < 0.05
        drawn_ms = START_MS + number * 60_000 - (rnd.randrange(4_000_000) if late else 0)
        price = rnd.choice(PRICES)
        why = rnd.random() < 0.1
        record = outcome(
            number,
            f"user{user}",
            drawn_ms=drawn_ms,
            price=price,
            policy=rnd.choices(("p@1", "friend@1", "stranger@1", "plain@1"), (6, 2, 1, 1))[0],
            features=(1.0, *[rnd.gauss(0.0, 1.0) for _ in range(width - 1)]),
            exposed=rnd.random() < 0.9,
            learnable=not why,
            unlearnable=("consent",) if why else (),
            bought=bought(price) if rnd.random() < 0.3 else None,
        )
        out[user % partitions].append(record)
        if rnd.random() < 0.05:
            out[user % partitions].append(a_late_purchase(number))
    return [_followed(records) for records in out]


def a_late_purchase(number: int) -> LatePurchase:
    return LatePurchase(decision_id=f"late{number}", user="zoe", item="lamp", purchase_id="e", event_time_ms=1, price=1,
                        quantity=1, draw_id="d", drawn_ms=0, drawn_price=1)  # fmt: skip


def _followed(records: list[OutcomeRecord]) -> list[OutcomeRecord]:
    """Name the next draw of the user where it was made within the window; then put the outcomes in the order of resolution."""
    last: dict[str, Outcome] = {}
    named: dict[str, Outcome] = {}
    for record in records:
        if not isinstance(record, Outcome):
            continue
        before = last.get(record.user)
        if before is not None and record.drawn_ms < before.resolved_ms:
            follower = NextDraw(draw_id=record.draw_id, item=record.item, price=record.price, drawn_ms=record.drawn_ms)
            named[before.draw_id] = _with_next(before, follower)
        named[record.draw_id] = last[record.user] = record
    whole = [named[record.draw_id] if isinstance(record, Outcome) else record for record in records]
    return sorted(whole, key=lambda one: one.resolved_ms if isinstance(one, Outcome) else START_MS)


def _with_next(record: Outcome, follower: NextDraw) -> Outcome:
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    return Outcome(**fields | {"next": follower})
