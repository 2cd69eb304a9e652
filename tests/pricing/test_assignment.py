"""pricing.assignment: the published cases of GrowthBook's hash, ramps, exclusion, holdout."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.experiments import Experiment, Namespace, Variant
from pricing.assignment import Lots, bucket_ranges, choose_variant, fnv32a, hash_of, in_namespace, ranges_of

CASES = json.loads((Path(__file__).parents[1] / "golden" / "growthbook_cases.json").read_text())
USERS = [f"user-{number}" for number in range(4_000)]
NAMES = ("plain", "bold", "brave")


def experiment(name="spring", weights=(0.5, 0.5), **more) -> Experiment:
    variants = tuple(
        Variant(name=label, weight=weight, policy="builtin") for label, weight in zip(NAMES, weights, strict=False)
    )
    return Experiment(**{"name": name, "number": 1, "variants": variants, "control": "plain", **more})


def drawn(*running: Experiment) -> dict[str, tuple[str, str, bool]]:
    """User -> (experiment, variant, held out) of those who are in one."""
    lots = Lots()
    lots.use(running)
    found = {user: lots.of(user) for user in USERS}
    return {
        user: (running[lot.experiment].name, running[lot.experiment].variants[lot.variant].name, lot.held_out)
        for user, lot in found.items()
        if lot is not None
    }


@pytest.mark.parametrize(("seed", "value", "version", "expected"), CASES["hash"])
def test_hashes_are_those_published(seed, value, version, expected):
    assert hash_of(seed, value, version) == expected


@pytest.mark.parametrize(("name", "asked", "expected"), CASES["getBucketRange"])
def test_bucket_ranges_are_those_published(name, asked, expected):
    found = [(round(start, 6), round(end, 6)) for start, end in bucket_ranges(*asked)]  # as their own test rounds
    assert found == [tuple(pair) for pair in expected], name


@pytest.mark.parametrize(("name", "number", "ranges", "expected"), CASES["chooseVariation"])
def test_variants_are_chosen_as_published(name, number, ranges, expected):
    assert choose_variant(number, [tuple(pair) for pair in ranges]) == expected, name


@pytest.mark.parametrize(("name", "user", "namespace", "expected"), CASES["inNamespace"])
def test_namespaces_hold_whom_they_should(name, user, namespace, expected):
    space, start, end = namespace
    assert in_namespace(user, Namespace(name=space, start=start, end=end)) is expected, name


def test_the_hash_reads_code_units_as_javascript_does():
    # the emoji is two code units in UTF-16, four bytes in UTF-8; fnv of its units D83D DE00 by hand
    value = 0x811C9DC5
    for unit in (0xD83D, 0xDE00):
        value = (value ^ unit) * 16_777_619 % 2**32
    assert fnv32a("\N{GRINNING FACE}") == value


@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.floats(0, 1), st.floats(0, 1))
def test_a_ramp_only_adds_users_and_moves_none(parts, one, other):
    weights = [part / sum(parts) for part in parts]
    low, high = sorted((one, other))
    before = bucket_ranges(len(weights), low, weights)
    after = bucket_ranges(len(weights), high, weights)
    for bucket in range(0, 10_000, 7):
        was = choose_variant(bucket / 10_000, before)
        assert was in (-1, choose_variant(bucket / 10_000, after))


def test_a_ramp_keeps_variant_and_holdout_of_every_user():
    before, after = drawn(experiment(coverage=0.2)), drawn(experiment(coverage=0.6, number=2))
    assert len(before) < len(after)
    assert before.items() <= after.items()


@given(st.lists(st.floats(0.02, 0.98), min_size=1, max_size=3, unique=True), st.text(max_size=20))
def test_experiments_in_one_namespace_never_share_a_user(cuts, user):
    edges = [0.0, *sorted(cuts), 1.0]
    spaces = [Namespace(name="prices", start=a, end=b) for a, b in pairwise(edges)]
    assert sum(in_namespace(user, space) for space in spaces) == 1


def test_a_user_is_in_the_experiment_of_the_own_namespace_range():
    low = experiment("low", namespace=Namespace(name="prices", start=0.0, end=0.3))
    high = experiment("high", namespace=Namespace(name="prices", start=0.3, end=1.0))
    found = drawn(low, high)
    assert len(found) == len(USERS)
    assert {user for user, (name, _, _) in found.items() if name == "low"} == drawn(low).keys()


def test_shares_of_variants_and_holdout_are_those_asked_for():
    found = drawn(experiment(weights=(0.2, 0.3, 0.5), holdout=0.1))
    for name, weight in zip(NAMES, (0.2, 0.3, 0.5), strict=True):
        share = sum(variant == name for _, variant, _ in found.values()) / len(USERS)
        assert abs(share - weight) < 4 * (weight * (1 - weight) / len(USERS)) ** 0.5
        held = [held_out for _, variant, held_out in found.values() if variant == name]
        assert abs(sum(held) / len(held) - 0.1) < 4 * (0.09 / len(held)) ** 0.5


def test_two_seeds_assign_independently():
    first, second = drawn(experiment(seed="a")), drawn(experiment(seed="b"))
    same = sum(first[user][1] == second[user][1] for user in USERS) / len(USERS)
    assert abs(same - 0.5) < 4 * (0.25 / len(USERS)) ** 0.5


def test_lots_are_drawn_anew_when_other_experiments_run():
    lots = Lots()
    lots.use((experiment(seed="a"),))
    before = [lots.of(user) for user in USERS[:100]]
    lots.use((experiment(seed="b"),))
    assert [lots.of(user) for user in USERS[:100]] != before
    lots.use(())
    assert lots.of(USERS[0]) is None


def test_zero_coverage_has_nobody():
    assert drawn(experiment(coverage=0.0)) == {}
    assert ranges_of(experiment(coverage=0.0)) == [(0.0, 0.0), (0.5, 0.5)]
