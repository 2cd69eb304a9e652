"""The parts of a report that have a truth of their own: labels, ranks, folds, intervals, divisions. Naive twins, by rows."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backtest.report import spill
from backtest.report.churn import bins_of, describe_churn, effect_of_discounts, stayed_away
from backtest.report.clusters import CLUSTERS_MAX, Slope, UserSums, clustered_mean
from backtest.report.divisions import Divisions, Extent, divide, tenure_bands
from backtest.report.draws import LOGGED, PRICES, Draws, wilson
from backtest.report.figures import Figures
from backtest.report.lattices import Lattices
from backtest.report.quality import TOP, describe_next_item, describe_slices
from backtest.report.spill import Spill
from backtest.report.targets import best_uniform, fixed_price, folds_of, list_price
from backtest.report.values import stays_away
from backtest.report.watching import PURCHASE_WITHIN_MS, Foretold, Watcher, followed_by_purchase
from contracts.policies import FixedPrice
from features.vectors import Encoded, TokenAsk
from pricing.lattice import scaled
from pricing.policies import nearest_at_or_below, target_price


def draws_like(count: int, seed: int, better: int = 900) -> Draws:
    """Draws at 80, 90 or 100 % of a list price of 1000, each as likely; a piece sells at `better` permille or less."""
    random = Random(seed)
    price = np.array([random.choice((800, 900, 1000)) for _ in range(count)])
    columns = {PRICES: np.tile([800, 900, 1000], count), LOGGED: np.full(3 * count, 1 / 3)}
    lattices = Lattices(3 * np.arange(count), np.full(count, 3), columns)
    zeros, truths = np.zeros(count, np.int64), np.ones(count, np.bool_)
    return Draws(
        user=np.array([random.randrange(count // 4) for _ in range(count)]), item=zeros, market=np.full(count, "us"),
        price=price, list_price=np.full(count, 1000), cost=np.full(count, 100), intent=zeros, sequence=zeros + 1,
        propensity=np.full(count, 1 / 3), forced=~truths, time_ms=np.arange(count), exposed=truths, learnable=truths,
        quantity=(price <= better).astype(np.int64), row=np.arange(count), lattices=lattices,
        churn=np.full(count, np.nan), churn_days=zeros - 1,
    )  # fmt: skip


def test_the_best_uniform_price_is_the_one_that_earns_most_on_other_users() -> None:
    draws = draws_like(2_000, seed=1)
    target = best_uniform(draws, draws.margin)
    assert "90 % of list price" in target.says
    assert np.array_equal(target.probability, (draws.price == 900).astype(float))
    assert [target.choices(part).tolist() for part in draws.lattices.parts(700)] == [
        [0, 1, 0] * rows for rows in (700, 700, 600)
    ]
    assert not target.unsupported.any()


@pytest.mark.parametrize("seed", range(3))
def test_a_share_of_list_price_asks_what_a_policy_of_that_fixed_price_would(seed: int) -> None:
    random = Random(seed)
    listed = np.array([random.randrange(500, 5_000) for _ in range(60)])
    rows = [
        sorted({scaled(int(one), random.randrange(700, 1_001)) for _ in range(random.randint(1, 5))}) for one in listed
    ]
    lengths = np.array([len(row) for row in rows])
    prices = np.concatenate([np.array(row) for row in rows])
    lattices = Lattices(np.cumsum(lengths) - lengths, lengths, {PRICES: prices, LOGGED: np.ones(len(prices))})
    draws = _renamed(draws_like(60, seed), list_price=listed, lattices=lattices)
    for permille in (600, 775, 925, 1_000, 1_200):
        rule = FixedPrice(multiplier_permille=permille)
        wanted = [
            nearest_at_or_below(row, target_price(rule, int(one), 0)) for row, one in zip(rows, listed, strict=True)
        ]
        found = fixed_price(draws, np.full(60, permille), "fixed").place
        assert found is not None
        assert found.tolist() == wanted


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


@pytest.mark.parametrize("part_rows", [7, 1_000])
def test_a_user_stays_away_who_has_no_event_between_the_window_and_the_horizon(
    part_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "PART_ROWS", part_rows)
    random = Random(4)
    events = sorted((random.randrange(1_000), random.randrange(6)) for _ in range(60))
    draws = draws_like(40, seed=5).where(np.arange(40))
    draws = Draws(**{name: getattr(draws, name) for name in Draws.__slots__} | {
        "user": np.array([random.randrange(6) for _ in range(40)]),
        "time_ms": np.array(sorted(random.randrange(1_000) for _ in range(40))),
    })  # fmt: skip
    found = stays_away(draws, _spilt(tmp_path, [(user, at) for at, user in events]), 30, 200, end_ms=1_000)
    for row in range(40):
        at, user = int(draws.time_ms[row]), int(draws.user[row])
        came = any(one == user and at + 30 <= when <= at + 200 for when, one in events)
        assert math.isnan(found[row]) if at + 200 > 1_000 else found[row] == (not came)


def _renamed(draws: Draws, **columns: Any) -> Draws:
    return Draws(**{name: getattr(draws, name) for name in Draws.__slots__} | columns)


def _spilt(directory: Path, events: list[tuple[int, int]]) -> Spill:
    """Return events as a report keeps them: (user, time), by user."""
    spilt = Spill(directory, "events", 2, len(events))
    for some in (events[:25], events[25:]):
        rows = np.array([(user, at) for user, at in some])
        spilt.append(rows[:, 0], rows)
    return spilt


@pytest.mark.parametrize("part_rows", [7, 1_000])
def test_who_has_no_event_on_the_days_after_a_draw_has_stayed_away(
    part_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "PART_ROWS", part_rows)
    random, day = Random(8), 86_400_000
    events = [(random.randrange(6), random.randrange(20 * day)) for _ in range(60)]
    drawn = np.array([random.randrange(20 * day) for _ in range(80)])
    users, days = (
        np.array([random.randrange(6) for _ in range(80)]),
        np.array([random.choice((-1, 1, 4)) for _ in range(80)]),
    )
    found = stayed_away(
        _renamed(draws_like(80, seed=9), user=users, time_ms=drawn, churn_days=days), _spilt(tmp_path, events),
        max(at for _, at in events),
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
    chances = [[0.1, 0.2, 0.7] if one else [0.7, 0.2, 0.1] for one in keen]
    price = np.array([random.choices((800, 900, 1000), one)[0] for one in chances])
    back = 0.3 + 0.4 * keen + effect * (1.0 - price / 1000) * 5.0
    away = np.array([float(random.random() >= one) for one in back])
    draws = draws_like(count, seed=11)
    lattices = draws.lattices.beside(LOGGED, np.array(chances).reshape(-1))
    draws = _renamed(draws, price=price, lattices=lattices, user=np.arange(count) // 3)
    naive = np.polyfit((1.0 - price / 1000) * 5.0, 1.0 - away, 1)[0]
    assert naive < 0.0
    for hazard in (np.full(count, 0.5), 0.7 - 0.4 * keen):
        found = effect_of_discounts(_renamed(draws, churn=hazard), away)
        assert found is not None
        value, half = found
        assert abs(value - effect) < 1.5 * half < 0.08
    figures = Figures()
    describe_churn(figures, _renamed(draws, churn=0.7 - 0.4 * keen), away)
    assert sum(row.value or 0.0 for _, row in figures.where("churn", measure="draws") if row.group) == count
    ((_, slope),) = figures.where("churn", measure="slope_value")
    assert slope.value == value
    forced = _renamed(draws, forced=np.ones(count, np.bool_), churn=np.full(count, 0.5))
    assert effect_of_discounts(forced, away) is None


def test_equal_hazards_lie_in_one_bin_and_bins_follow_the_hazard() -> None:
    hazard = np.array([0.5] * 50 + [0.25, 0.125] + [0.75] * 30 + [0.875] * 20)
    place = bins_of(hazard)
    assert [len(set(place[hazard == one].tolist())) for one in np.unique(hazard)] == [1] * 5
    assert np.all(np.diff(place[np.argsort(hazard)]) >= 0)
    assert bins_of(np.linspace(0.0, 1.0, 80)).tolist() == [number for number in range(8) for _ in range(10)]


def test_a_log_too_short_for_the_horizon_says_so() -> None:
    figures = Figures()
    describe_churn(figures, _renamed(draws_like(40, seed=12), churn=np.full(40, 0.5)), np.full(40, np.nan))
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


def test_sums_taken_in_pieces_are_those_of_the_whole() -> None:
    random = Random(8)
    users = np.array([random.randrange(40) for _ in range(500)])
    x = np.array([random.gauss(0.0, 1.0) for _ in range(500)])
    y = np.array([0.3 * one + random.gauss(user % 4, 1.0) for one, user in zip(x, users, strict=True)])
    sums, slope = UserSums(), Slope()
    for rows in (slice(0, 130), slice(130, 131), slice(131, 500)):
        sums.add(y[rows], users[rows])
        slope.add(x[rows], y[rows], users[rows])
    assert sums.mean() == pytest.approx(clustered_mean(y, users))
    fitted, half = slope.fit()
    spread = sum((one - x.mean()) ** 2 for one in x)
    assert fitted == pytest.approx(sum((one - x.mean()) * two for one, two in zip(x, y, strict=True)) / spread)
    scores: dict[int, float] = defaultdict(float)
    for user, one, two in zip(users.tolist(), x, y, strict=True):
        scores[user] += (one - x.mean()) * (two - y.mean() - fitted * (one - x.mean()))
    assert half == pytest.approx(1.959963984540054 * math.sqrt(sum(one * one for one in scores.values())) / spread)


def test_sums_do_not_grow_with_users_beyond_a_number_of_clusters() -> None:
    sums = UserSums()
    sums.add(np.ones(3), np.array([0, CLUSTERS_MAX, 10**12]))
    sums.add(np.array([4.0]), np.array([CLUSTERS_MAX + 1]))
    mean, half = sums.mean()
    assert mean == 1.75
    assert half == pytest.approx(1.959963984540054 * math.sqrt(2.25**2 + 2.25**2) / 4)


def test_rows_that_are_spilt_come_back_in_their_order_with_all_of_a_key_in_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill, "PART_ROWS", 10)
    spilt = Spill(tmp_path, "rows", 2, 35)
    keys = np.array([Random(place).randrange(9) for place in range(35)])
    rows = np.stack([keys, np.arange(35)], axis=1)
    for piece in np.array_split(np.arange(35), 6):
        spilt.append(keys[piece], rows[piece])
    parts = list(spilt)
    assert len(parts) == spilt.parts == 4
    for number, part in enumerate(parts):
        assert part.tolist() == [row.tolist() for row in rows if row[0] % 4 == number]


def test_a_log_is_divided_at_the_quartiles_of_its_list_prices() -> None:
    random = Random(9)
    prices = [random.randrange(100, 5_000, 100) for _ in range(77)]
    extent = Extent(decisions=77, last_ms=1, items=Counter({0: 77}), list_prices=Counter(prices))
    wanted = np.unique(np.quantile(prices, (0.25, 0.5, 0.75)).astype(np.int64))
    assert divide(extent, {}, 100).price_edges.tolist() == wanted.tolist()


def test_what_was_foretold_comes_back_from_its_file(tmp_path: Path) -> None:
    found = Foretold(
        np.array([1, 2]),
        np.array([7, 8]),
        np.array([True, True]),
        np.array([0.25, 0.5]),
        np.array([True, False]),
        np.array([3]),
        np.array([0]),
        9,
        5,
        2,
        1,
        0.5,
    )
    found.write(tmp_path / "f.npz")
    again = Foretold.read(tmp_path / "f.npz")
    for name in Foretold.__slots__:
        assert np.array_equal(getattr(again, name), getattr(found, name)), name
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


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
    assert {name: groups.texts().tolist() for name, groups in found.items()} == {
        "market": ["us", "de", "us"],
        "category": ["shoes", "other", "shoes"],
        "user": ["new", "returning", "returning"],
        "intent": ["unknown", "level 0", "level 5 or more"],
        "list price": ["below 10.00", "10.00 to 20.00", "20.00 and more"],
    }
    assert [name for name, _ in found["list price"].present()] == ["below 10.00", "10.00 to 20.00", "20.00 and more"]
    assert [(name, rows.tolist()) for name, rows in found["category"].present()] == [
        ("shoes", [True, False, True]),
        ("other", [False, True, False]),
    ]
    assert divisions.periods(np.array([0, 999, 1_000])).tolist() == [0, 0, 1_000]
    bands = ["1–4 events", "5–19 events", "20–99 events", "100 events or more"]
    assert tenure_bands(np.array([1, 5, 99, 100])).texts().tolist() == bands


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


def test_purchases_are_validated_on_users_that_the_model_met_before_and_on_others_and_slice_by_slice_in_time() -> None:
    random = np.random.default_rng(12)
    count = 500
    chance, known = random.random(count), random.random(count) < 0.4
    bought = random.random(count) < np.where(known, chance, 1.0 - chance)
    time_ms = random.permutation(count)
    nobody = np.zeros(0, np.int64)
    found = Foretold(np.arange(count), time_ms, known, chance, bought, nobody, nobody, 9, 5, 2, 1, 1.0)
    figures = Figures()
    describe_slices(figures, "m", found)
    value = {(row.group, row.measure): row.value for row in figures}
    assert value["users with events before those that are tested", "AUC"] > 0.7
    assert value["users without", "AUC"] < 0.3
    assert value["users without", "examples"] == (~known).sum()
    for number in range(5):
        rows = (time_ms >= 100 * number) & (time_ms < 100 * (number + 1))
        losses = [-math.log(p if sold else 1.0 - p) for p, sold in zip(chance[rows], bought[rows], strict=True)]
        assert value[f"slice {number + 1} of 5", "log-loss"] == pytest.approx(sum(losses) / 100)


def test_the_next_item_is_ranked_by_what_was_said_before_it() -> None:
    from contracts.events import View
    from features.signals import NO_SIGNALS
    from features.tokens import token_of

    items = ["a", "b", "c"]
    rows = {item: place + 1 for place, item in enumerate(items)}
    bias = np.array([0, 0.3, 0.2, 0.1])
    asked: list[list[int]] = []

    def scores(vectors: np.ndarray, recent: np.ndarray) -> Any:
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
    describe_next_item(figures, "m", watcher.foretold())
    found = {row.measure: row.value for row in figures}
    ranks = [1, 2, 3, 1]  # scores: 1 for the item before, and the bias
    assert found["events"] == 4
    assert found["accuracy (first of the list)"] == 0.5
    assert found[f"recall@{TOP}"] == 1.0
    assert found[f"MRR@{TOP}"] == pytest.approx(sum(1 / rank for rank in ranks) / 4)
    assert found[f"NDCG@{TOP}"] == pytest.approx(sum(1 / math.log2(1 + rank) for rank in ranks) / 4)
    assert asked == [[1, -1], [1, 1], [2, 1], [3, 2]], "the newest first, -1 where there was none"
