"""The parts of a report that have a truth of their own: labels, ranks, folds, intervals, divisions. Naive twins, by rows."""

from __future__ import annotations

import math
from collections import defaultdict
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest

from backtest.report.churn import bins_of, describe_churn, effect_of_discounts, stayed_away
from backtest.report.divisions import Divisions, groups_of, tenure_bands
from backtest.report.draws import Draws, wilson
from backtest.report.figures import Figures
from backtest.report.prices import clustered_mean
from backtest.report.quality import PURCHASE_WITHIN_MS, TOP, Watcher, describe_next_item, followed_by_purchase
from backtest.report.targets import best_uniform, folds_of, list_price
from backtest.report.values import stays_away
from features.vectors import Encoded, TokenAsk


def draws_like(count: int, seed: int, better: int = 900) -> Draws:
    """Draws at 80, 90 or 100 % of a list price of 1000, each as likely; a piece sells at `better` permille or less."""
    random = Random(seed)
    price = np.array([random.choice((800, 900, 1000)) for _ in range(count)])
    rows = np.empty(count, np.object_)
    rows[:] = [np.array([800, 900, 1000])] * count
    chances = np.empty(count, np.object_)
    chances[:] = [np.full(3, 1 / 3)] * count
    zeros, truths = np.zeros(count, np.int64), np.ones(count, np.bool_)
    return Draws(
        user=np.array([random.randrange(count // 4) for _ in range(count)]), item=zeros, market=np.full(count, "us"),
        price=price, list_price=np.full(count, 1000), cost=np.full(count, 100), intent=zeros, sequence=zeros + 1,
        propensity=np.full(count, 1 / 3), forced=~truths, time_ms=np.arange(count), exposed=truths, learnable=truths,
        quantity=(price <= better).astype(np.int64), prices=rows, probabilities=chances, ids=np.arange(count).astype(object),
    )  # fmt: skip


def test_the_best_uniform_price_is_the_one_that_earns_most_on_other_users() -> None:
    draws = draws_like(2_000, seed=1)
    target = best_uniform(draws, draws.margin)
    assert "90 % of list price" in target.says
    assert np.array_equal(target.probability, (draws.price == 900).astype(float))
    assert all(choice.tolist() == [0, 1, 0] for choice in target.choices)
    assert not target.unsupported.any()


def test_the_list_price_is_the_last_of_the_feasible_prices_without_raises() -> None:
    draws = draws_like(100, seed=2)
    assert np.array_equal(list_price(draws).probability, (draws.price == 1000).astype(float))


def test_a_user_is_in_one_fold_and_folds_are_about_equal() -> None:
    users = np.repeat(np.arange(5_000), 3)
    fold = folds_of(users)
    assert all(len(set(fold[users == user].tolist())) == 1 for user in range(50))
    assert np.bincount(fold).min() > 0.18 * len(users)


def test_a_look_is_followed_by_a_purchase_of_the_same_user_and_item_within_the_window() -> None:
    random = Random(3)
    rows = sorted(
        (random.randrange(10 * PURCHASE_WITHIN_MS), random.randrange(4), random.randrange(3), random.random() < 0.2)
        for _ in range(400)
    )
    time_ms, user, item, bought = (np.array(column) for column in zip(*rows, strict=True))
    found = followed_by_purchase(user, item, time_ms, bought)
    for place, (at, who, what, purchase) in enumerate(rows):
        if not purchase:
            later = [one for one in rows[place + 1 :] if one[1:] == (who, what, True)]
            assert found[place] == any(0 <= one[0] - at <= PURCHASE_WITHIN_MS for one in later)
    assert found.any()


def test_a_user_stays_away_who_has_no_event_between_the_window_and_the_horizon() -> None:
    random = Random(4)
    events = sorted((random.randrange(1_000), random.randrange(6)) for _ in range(60))
    draws = draws_like(40, seed=5).where(np.arange(40))
    draws = Draws(**{name: getattr(draws, name) for name in Draws.__slots__} | {
        "user": np.array([random.randrange(6) for _ in range(40)]),
        "time_ms": np.array(sorted(random.randrange(1_000) for _ in range(40))),
    })  # fmt: skip
    found = stays_away(
        draws, np.array([user for _, user in events]), np.array([at for at, _ in events]), 30, 200, end_ms=1_000
    )
    for row in range(40):
        at, user = int(draws.time_ms[row]), int(draws.user[row])
        came = any(one == user and at + 30 <= when <= at + 200 for when, one in events)
        assert math.isnan(found[row]) if at + 200 > 1_000 else found[row] == (not came)


def _renamed(draws: Draws, **columns: np.ndarray) -> Draws:
    return Draws(**{name: getattr(draws, name) for name in Draws.__slots__} | columns)


def test_who_has_no_event_on_the_days_after_a_draw_has_stayed_away() -> None:
    random, day = Random(8), 86_400_000
    events = [(random.randrange(6), random.randrange(20 * day)) for _ in range(60)]
    drawn = np.array([random.randrange(20 * day) for _ in range(80)])
    users, days = (
        np.array([random.randrange(6) for _ in range(80)]),
        np.array([random.choice((-1, 1, 4)) for _ in range(80)]),
    )
    found = stayed_away(
        _renamed(draws_like(80, seed=9), user=users, time_ms=drawn), days, np.array([user for user, _ in events]),
        np.array([at for _, at in events]),
    )  # fmt: skip
    last = max(at for _, at in events) // day
    for row in range(80):
        today, ahead = int(drawn[row]) // day, int(days[row])
        came = any(user == users[row] and today < at // day <= today + ahead for user, at in events)
        if ahead < 0 or today + ahead >= last:
            assert math.isnan(found[row])
        else:
            assert found[row] == (not came)
    assert {0.0, 1.0} <= set(found.tolist())


def test_the_effect_of_prices_on_coming_back_is_that_of_the_lot_not_of_who_was_offered_what() -> None:
    # keen users come back anyway and are offered list price more often: by rows discounts look harmful, and they help
    random, count, effect = Random(10), 12_000, 0.1
    keen = np.array([random.random() < 0.5 for _ in range(count)])
    chances = np.empty(count, np.object_)
    chances[:] = [np.array([0.1, 0.2, 0.7]) if one else np.array([0.7, 0.2, 0.1]) for one in keen]
    price = np.array([random.choices((800, 900, 1000), one)[0] for one in chances])
    back = 0.3 + 0.4 * keen + effect * (1.0 - price / 1000) * 5.0
    away = np.array([float(random.random() >= one) for one in back])
    draws = _renamed(draws_like(count, seed=11), price=price, probabilities=chances, user=np.arange(count) // 3)
    naive = np.polyfit((1.0 - price / 1000) * 5.0, 1.0 - away, 1)[0]
    assert naive < 0.0
    for hazard in (np.full(count, 0.5), 0.7 - 0.4 * keen):
        found = effect_of_discounts(draws, hazard, away)
        assert found is not None
        value, half = found
        assert abs(value - effect) < 1.5 * half < 0.08
    figures = Figures()
    describe_churn(figures, draws, 0.7 - 0.4 * keen, away)
    assert sum(row.value or 0.0 for _, row in figures.where("churn", measure="draws") if row.group) == count
    ((_, slope),) = figures.where("churn", measure="slope_value")
    assert slope.value == value
    forced = _renamed(draws, forced=np.ones(count, np.bool_))
    assert effect_of_discounts(forced, np.full(count, 0.5), away) is None


def test_equal_hazards_lie_in_one_bin_and_bins_follow_the_hazard() -> None:
    hazard = np.array([0.5] * 50 + [0.25, 0.125] + [0.75] * 30 + [0.875] * 20)
    place = bins_of(hazard)
    assert [len(set(place[hazard == one].tolist())) for one in np.unique(hazard)] == [1] * 5
    assert np.all(np.diff(place[np.argsort(hazard)]) >= 0)
    assert bins_of(np.linspace(0.0, 1.0, 80)).tolist() == [number for number in range(8) for _ in range(10)]


def test_a_log_too_short_for_the_horizon_says_so() -> None:
    figures = Figures()
    describe_churn(figures, draws_like(40, seed=12), np.full(40, 0.5), np.full(40, np.nan))
    ((_, note),) = figures.where("churn")
    assert note.text.startswith("0 draws with a churn hazard have their whole horizon in this log")


def test_a_mean_over_users_has_the_interval_of_sums_by_user() -> None:
    random = Random(6)
    users = [random.randrange(30) for _ in range(300)]
    values = [random.gauss(user % 3, 1.0) for user in users]
    mean, half = clustered_mean(np.array(values), np.array(users))
    middle = sum(values) / len(values)
    sums: dict[int, float] = defaultdict(float)
    for user, value in zip(users, values, strict=True):
        sums[user] += value - middle
    assert mean == pytest.approx(middle)
    assert half == pytest.approx(1.959963984540054 * math.sqrt(sum(one * one for one in sums.values())) / len(values))


def test_the_interval_of_a_share_is_wilsons() -> None:
    low, high = wilson(10, 100)
    z = 1.959963984540054
    middle = (0.1 + z * z / 200) / (1 + z * z / 100)
    half = z * math.sqrt(0.1 * 0.9 / 100 + z * z / 40_000) / (1 + z * z / 100)
    assert (low, high) == pytest.approx((middle - half, middle + half))


def test_divisions_name_every_row() -> None:
    divisions = Divisions(categories={0: "shoes"}, price_edges=np.array([1_000, 2_000]), minor=100, step_ms=1_000)
    found = divisions.segments(
        np.array([0, 1, 0]),
        np.array(["us", "de", "us"]),
        np.array([999, 1_000, 2_000]),
        np.array([9, 10, 11]),
        np.array([-1, 0, 7]),
    )
    assert {name: groups.tolist() for name, groups in found.items()} == {
        "market": ["us", "de", "us"],
        "category": ["shoes", "other", "shoes"],
        "user": ["new", "returning", "returning"],
        "intent": ["unknown", "level 0", "level 5 or more"],
        "list price": ["below 10.00", "10.00 to 20.00", "20.00 and more"],
    }
    assert list(groups_of(found["list price"])) == ["below 10.00", "10.00 to 20.00", "20.00 and more"]
    assert list(groups_of(found["category"])) == ["shoes", "other"]
    assert divisions.periods(np.array([0, 999, 1_000])).tolist() == [0, 0, 1_000]
    bands = ["1–4 events", "5–19 events", "20–99 events", "100 events or more"]
    assert tenure_bands(np.array([1, 5, 99, 100])).tolist() == bands


class Constant:
    """An encoder whose vector of a user is what the last token's item was."""

    digest = "d"

    def __init__(self, rows: dict[str, int], width: int) -> None:
        self._rows, self._width = rows, width

    def encode(self, owner: object, asks: list[TokenAsk]) -> Encoded:
        vectors = np.eye(self._width, dtype=np.float32)[[self._rows[ask.token[16:].decode()] for ask in asks]]
        return Encoded(vectors, np.zeros(len(asks), np.float32))

    def release(self, owner: object) -> None:
        """There is nothing to forget."""


def test_the_next_item_is_ranked_by_what_was_said_before_it() -> None:
    from contracts.events import View
    from features.signals import NO_SIGNALS
    from features.tokens import token_of

    items = ["a", "b", "c"]
    rows = {item: place + 1 for place, item in enumerate(items)}
    bias = np.array([0, 0.3, 0.2, 0.1])
    asked: list[list[int]] = []

    def scores(vectors: np.ndarray, recent: np.ndarray) -> np.ndarray:
        asked.extend(recent.tolist())
        return vectors + bias

    manifest = SimpleNamespace(architecture=SimpleNamespace(recent=2))
    artifact = SimpleNamespace(rows=rows, manifest=manifest, scores=scores)
    watcher = Watcher(Constant(rows, 4), artifact, from_ms=0, share=1.0)  # type: ignore[arg-type]  # as much as is asked
    walk, history = ["a", "a", "b", "c", "c"], b""
    for position, item in enumerate(walk):
        view = View(event_id=str(position), user="u", item=item, event_time_ms=position, price=1, currency="USD")
        token = token_of(view, 1)
        watcher.encode(None, [TokenAsk(b"u", position, history, token, NO_SIGNALS)])
        history += token
    figures = Figures()
    describe_next_item(figures, "m", watcher)
    found = {row.measure: row.value for row in figures}
    ranks = [1, 2, 3, 1]  # scores: 1 for the item before, and the bias
    assert found["events"] == 4
    assert found["accuracy (first of the list)"] == 0.5
    assert found[f"recall@{TOP}"] == 1.0
    assert found[f"MRR@{TOP}"] == pytest.approx(sum(1 / rank for rank in ranks) / 4)
    assert found[f"NDCG@{TOP}"] == pytest.approx(sum(1 / math.log2(1 + rank) for rank in ranks) / 4)
    assert asked == [[1, -1], [1, 1], [2, 1], [3, 2]], "the newest first, -1 where there was none"
