"""Golden decisions: a scripted day whose records must stay what they are, byte for byte, price updates included.

A change here changes what downstream services and old logs see. After a change that is meant, rewrite the file with
`python -m tests.pricing.test_golden_decisions` and read the difference.
"""

from __future__ import annotations

from pathlib import Path

from contracts.events import Event
from contracts.intake import Inbound
from contracts.policies import Policy, Rails, SessionIntent
from tests.pricing.shop import MINUTE_MS, START_MS, Shop, item

GOLDEN = Path(__file__).with_name("golden_decisions.jsonl")
POLICY = Policy(
    name="golden",
    number=3,
    seed=42,
    rule=SessionIntent(explore=0.5),
    rails=Rails(raise_markets=("BR",), dwell_ms=600_000),
)


def a_shop() -> Shop:
    lamp = item("lamp", 12_999, cost=9_000, floor=9_500, map_price=10_000, ceiling=14_500)
    cheaper = item("lamp", 11_999, cost=9_000, valid_from_ms=START_MS + 25 * MINUTE_MS)
    return Shop(lamp, cheaper, item("rug", 499), item("vase", 1_999, floor=5_000), policy=POLICY, offers_max=3)


def a_day(shop: Shop) -> list[Event | Inbound]:
    return [
        shop.view(0),
        shop.click(1, action="add_to_cart"),
        shop.view(2, "rug", market="BR", decision_id="rendered"),
        shop.view(2, "vase"),
        shop.view(3, "ghost"),
        shop.broken("not_json"),
        shop.view(5, user="bob", query="lamp", dwell_ms=61_000),
        shop.purchase(6, user="bob", quantity=2),
        shop.view(11),
        shop.view(26),
        shop.view(27, "rug"),
        shop.consent(False, 28),
        shop.view(29),
        shop.consent(True, 30),
        *(shop.view(31 + step, user=f"user {step}") for step in range(8)),
    ]


def lines() -> list[bytes]:
    shop = a_shop()
    shop.feed(*a_day(shop))
    assert shop.last is not None
    return [value for _, value in (*shop.last.prices, *shop.last.decisions)]


def test_the_golden_decisions_stay_what_they_are():
    assert lines() == GOLDEN.read_bytes().splitlines()


if __name__ == "__main__":
    GOLDEN.write_bytes(b"\n".join(lines()) + b"\n")
