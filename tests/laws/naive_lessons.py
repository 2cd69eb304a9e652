"""What a policy learns once more, plainly: over the raw JSON of the topic `outcomes`, in two steps, nothing kept between them.

First which outcomes teach, by the rules as written; then one pass over these. Imports nothing of what it checks.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from tests.pricing.naive_demand import naive_posterior


def in_order(topic, bounds=None):
    """Return (partition, record) of raw records per partition, in the order of learning.

    Args:
        topic: per partition, (offset, record) in offset order; None for what is no JSON of an outcome.
        bounds: the positions of every version published, ascending; between two of them the records are sorted. Without
            them: all in one.
    """
    keyed = []
    for partition, records in enumerate(topic):
        highest = 0
        for offset, record in records:
            if record is not None and record["record"] == "outcome":
                highest = max(highest, record["resolved_ms"])
            keyed.append((highest, partition, offset, record))
    pieces = []
    before = [0] * len(topic)
    for until in bounds or [[1 << 62] * len(topic)]:
        piece = [one for one in keyed if before[one[1]] <= one[2] < until[one[1]]]
        pieces += sorted(piece, key=lambda one: one[:3])
        before = until
    return [(key, partition, record) for key, partition, _, record in pieces]


def teaching(ordered, readable, per_user, window_ms, since_ms=0):
    """Return the outcomes that teach, in order; `readable` are the versions of policies with the learner's features."""
    learned = defaultdict(int)
    spans = {}
    out = []
    for key, partition, record in ordered:
        span = key // window_ms
        if spans.get(partition) != span:
            spans[partition] = span
            learned = defaultdict(int, {who: count for who, count in learned.items() if who[0] != partition})
        if record is None or record["record"] != "outcome":
            continue
        good = record["learnable"] and record["exposed"] and record["drawn_ms"] >= since_ms
        who = partition, record["user"]
        if good and record.get("features") and record["policy"] in readable and learned[who] < per_user:
            learned[who] += 1
            out.append(record)
    return out


def naive_lambda(ordered, mine, permille, period_ms, step):
    """Return (lambda, the discounts so far of the purchases of the period that runs), of the policy's own, not held out."""
    periods = defaultdict(list)
    highest = 0
    for key, _, record in ordered:
        highest = max(highest, key)
        sold = periods[highest // period_ms]
        if record is None or record["record"] != "outcome" or record["bought"] is None:
            continue
        if record["policy"] == mine and not record.get("held_out"):
            sold.append(max(1.0 - record["price"] / record["list_price"], 0.0))
    *over, last = [periods[period] for period in sorted(periods)]
    weight = 0.0
    for sold in over:
        if sold:
            weight = min(max(weight + step * (sum(sold) / len(sold) - permille / 1000), 0.0), 10.0)
    return weight, last


def naive_demand(outcomes, width, prior):
    """Return (mean, covariance) of the outcomes that teach; `prior` are the fields of contracts.rules.Prior."""
    rows = [(one["features"], (one["list_price"] - one["price"]) * 5.0 / one["list_price"], one["bought"] is not None)
            for one in outcomes]  # fmt: skip
    return naive_posterior(rows, width, **prior)


def naive_values(outcomes, width, *, rate, discount, tau_ms, value_max, trace=None, besides=0.0):
    """Return the weights (3, D) of Q-learning (`trace` None) or SARSA, revenue the reward: a step when the next draw is known.

    Every draw earns `besides`, too, per 20 % of list that it was below list. The draws of a user follow one another here without a
    break in the memory of the learner.
    """
    weights = np.zeros((3, width))
    waits, traces = {}, {}
    for one in outcomes:
        former = waits.pop(one["draw_id"], None)
        if former is not None:
            _step(weights, former, one, traces, rate, discount, tau_ms, value_max, trace, besides)
        follower = one["next"]
        if follower is not None and follower["drawn_ms"] >= one["drawn_ms"] and discount > 0:
            waits[follower["draw_id"]] = one
        else:
            _step(weights, one, None, traces, rate, discount, tau_ms, value_max, trace, besides)
    return weights


def _phi(one, price):
    shift = (one["list_price"] - price) * 5.0 / one["list_price"]
    return np.outer([1.0, shift, shift**2], one["features"])


def _step(weights, one, after, traces, rate, discount, tau_ms, value_max, trace, besides):
    phi = _phi(one, one["price"])
    reward = one["price"] / one["list_price"] if one["bought"] is not None else 0.0
    reward += besides * (one["list_price"] - one["price"]) * 5.0 / one["list_price"]
    error = reward - np.vdot(weights, phi)
    reach = 0.0
    if after is not None:
        reach = discount ** ((after["drawn_ms"] - one["drawn_ms"]) / tau_ms)
        prices = [after["price"]] if trace is not None else after["prices"]
        best = max(np.vdot(weights, _phi(after, price)) for price in prices)
        error += min(max(reach * best, -value_max), value_max)
    eligible = traces.pop(one["draw_id"], 0.0) + phi
    weights += rate / len(one["features"]) * error * eligible
    if after is not None and trace is not None:
        traces[after["draw_id"]] = reach * trace * eligible
