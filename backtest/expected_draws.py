"""What a draw of this engine is expected to earn at a price, q(intent, price / list): what DM and DR need at logged draws.

A table, as for bandit files (backtest.target_tables): the mean reward, over list price where it is money, of draws at a level of
intent and a share of list price, drawn towards the level's as if by STRENGTH draws, and cross-fitted over folds of users. Not
here: the model of reports, which also looks at the item (backtest.report.reward_model).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from backtest.feedback import Floats, Ints
from backtest.logged_draws import LoggedDraws, Reward
from backtest.target_tables import FOLDS, STRENGTH

BANDS_PER_LIST = 40
"""Steps of the share of list price in the list price: 2.5 % each."""


def expected_of(draws: LoggedDraws, name: str, kind: Reward) -> tuple[Floats, Floats]:
    """Return what each draw is expected to earn, at the price that was drawn and under the target `name`, each (n,).

    Args:
        draws: at least one.
        name: of the target; what it gives to prices that were not feasible earns nothing.
        kind: of the reward.
    """
    listed = draws.column("list_price").astype(np.float64)
    unit = listed if kind in ("margin", "revenue") else np.ones(len(draws))
    feasible = draws.table.column("prices").combine_chunks()
    chances = draws.table.column(f"targets.{name}").combine_chunks().flatten().to_numpy()
    row = np.repeat(np.arange(len(draws)), feasible.value_lengths().to_numpy())
    drawn = _band(draws.column("price"), listed)
    each = _band(feasible.flatten().to_numpy(), listed[row])
    level = np.unique(draws.table.column("intent").combine_chunks().fill_null(-1), return_inverse=True)[1].reshape(-1)
    fold, bands = draws.clusters() % FOLDS, int(max(each.max(), drawn.max())) + 1
    value = draws.rewards(kind) / unit
    at_drawn, at_each = np.zeros(len(draws)), np.zeros(len(row))
    for number in range(FOLDS):
        q = _means(level[fold != number], drawn[fold != number], value[fold != number], (int(level.max()) + 1, bands))
        mine, of_mine = fold == number, fold[row] == number
        at_drawn[mine] = q[level[mine], drawn[mine]]
        at_each[of_mine] = q[level[row[of_mine]], each[of_mine]]
    return at_drawn * unit, np.bincount(row, at_each * chances, minlength=len(draws)) * unit


def _band(price: Any, listed: Floats) -> Ints:  # noqa: ANN401 - whole numbers
    band: Ints = np.round(BANDS_PER_LIST * price / listed).astype(np.int64)
    return band


def _means(level: Ints, band: Ints, value: Floats, shape: tuple[int, int]) -> Floats:
    """Return the mean value of each level and band, of `shape`, drawn towards the level's mean."""
    cell, size = level * shape[1] + band, shape[0] * shape[1]
    count = np.bincount(cell, minlength=size).reshape(shape)
    total = np.bincount(cell, value, minlength=size).reshape(shape)
    overall = float(value.mean()) if len(value) else 0.0
    of_level = np.where(count.any(1), total.sum(1) / np.maximum(count.sum(1), 1), overall)
    means: Floats = (total + STRENGTH * of_level[:, None]) / (count + STRENGTH)
    return means
