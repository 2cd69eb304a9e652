"""A small shop that shows the engine's prices, for reports: four categories, two markets, six days; demand falls with the price.

python -m tests.backtest.report_shop DIRECTORY [USERS]
"""

from __future__ import annotations

import sys
from heapq import heappop, heappush
from math import exp
from pathlib import Path
from random import Random

import msgspec

from contracts.catalogue import CatalogueItem
from contracts.log_rows import EventRow
from contracts.outcomes import Outcome, decode_outcome
from contracts.policies import CurrentPolicy, Policy, PolicyRecord, Rails, SessionIntent
from tests.backtest.experiment_shop import DAY_MS, MINUTE_MS, START_MS, Shop, write_shop

CATEGORIES = ("shoes", "phones", "audio", "kitchen")
ITEMS = 24
SLOPE = 9.0
"""How much the log-odds of buying fall with the share of list price that is asked: a discount of 20 % pays at these costs."""
LOGGED = Policy(
    name="explorer",
    number=1,
    seed=3,
    rule=SessionIntent(discounts_permille=(150, 100, 50, 0), explore=0.4),
    rails=Rails(charm_endings=(), step_max_permille=300),
)
TITLE = "<b>item</b> & friends, $5 to $9"
"""Of every item, behind its number: a page must show it as it stands."""


def catalogue() -> list[CatalogueItem]:
    """Return the items of the shop; cost is half of the list price."""
    return [
        CatalogueItem(
            item=f"item-{number:02d}",
            valid_from_ms=0,
            title=f"{number} {TITLE}",
            category=CATEGORIES[number % len(CATEGORIES)],
            brand="b",
            currency="USD",
            list_price=1_999 + 500 * number,
            cost=1_000 + 250 * number,
        )
        for number in range(ITEMS)
    ]


def chance(keen: float, share: float) -> float:
    """Return the chance that somebody buys at a share of list price."""
    return 1.0 / (1.0 + exp(2.3 + SLOPE * (share - 1.0) - keen))


def _write_truth(file: Path, shop: Shop, keen: list[float]) -> None:
    """Write what every feasible price of every draw would have sold; of draws that were looked at once, that is all of it."""
    lines = []
    for row in shop.outcomes:
        outcome = decode_outcome(row.record)
        if isinstance(outcome, Outcome):
            for price in outcome.prices:
                sells = chance(keen[int(outcome.user.removeprefix("shopper-"))], price / outcome.list_price)
                lines.append({"draw_id": outcome.draw_id, "price": price, "cost": outcome.cost, "chance": sells})
    file.write_bytes(msgspec.json.Encoder().encode_lines(lines))


def write_report_shop(directory: Path, users: int, seed: int = 7) -> None:
    """Write the log of the shop; equal arguments give equal files."""
    random = Random(seed)
    policies: list[PolicyRecord] = [LOGGED, CurrentPolicy(name=LOGGED.name, number=LOGGED.number)]
    items = catalogue()
    shop = Shop(policies, items)
    keen = [random.gauss(0.0, 1.0) for _ in range(users)]
    coming: list[tuple[int, int, int, str]] = []
    for user in range(users):
        for day in range(6):
            for _ in range(random.choice((0, 0, 1, 2, 3, 4))):
                at_ms = START_MS + day * DAY_MS + random.randrange(DAY_MS)
                heappush(coming, (at_ms, user, random.randrange(ITEMS), "view"))
    while coming:
        at_ms, user, place, kind = heappop(coming)
        item = items[place]
        row = EventRow(
            kind, event_id=f"e{len(shop.rows)}", user=f"shopper-{user:05d}", item=item.item, event_time_ms=at_ms,
            price=item.list_price, currency="USD", arrival_ms=at_ms, market="us" if user % 3 else "de",
        )  # fmt: skip
        if kind.isdecimal():
            row.type, row.price, row.quantity = "purchase", int(kind), 1
        shown = shop.price(row)
        if row.type == "view" and shown is not None and random.random() < chance(keen[user], shown / item.list_price):
            heappush(coming, (at_ms + MINUTE_MS + random.randrange(5 * MINUTE_MS), user, place, str(shown)))
    write_shop(
        directory, shop, policies, f"Generated: python -m tests.backtest.report_shop, {users} users, seed {seed}"
    )
    _write_truth(directory / "truth.jsonl", shop, keen)


if __name__ == "__main__":
    write_report_shop(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_500)
