"""Evaluation: labels and calibration by hand, and a whole run on a generated shop, with a model whose worth is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from backtest.shoppers import generate_log
from contracts.errors import BadInput
from contracts.log import open_log
from contracts.log_writer import LogWriter
from contracts.semantics import Topology
from features.artifact import write_artifact
from features.tokens import KINDS
from model_export.applied import applied_events, catalogue_of
from model_export.dataset import log_digest
from model_export.evaluate_commands import evaluate_command
from model_export.evaluation import MODEL, ROLLING_BASELINE, evaluate
from model_export.next_item import SLICES, default_split_ms, interactions_of
from model_export.observed import observe
from model_export.propensity import (
    BINS,
    PURCHASE_WITHIN_MS,
    ROLLING,
    RollingBaseline,
    calibration_bins,
    propensity_metrics,
    purchase_labels,
    rolling_features,
)
from model_export.quality_report import doubt_of, markdown_of, time_of
from tests.features.models import parts
from tests.model_export.last_item import LastItem

PURCHASE = KINDS.index("purchase")
MINUTE = 60_000


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shop") / "log"
    generate_log(directory, 400, 8_000, 1, Topology(partitions=2))
    return directory


@pytest.fixture(scope="module")
def evaluation(shop):
    model = LastItem(catalogue_of(open_log(shop)))
    return evaluate(shop, None, model, model)


def with_events(slices):
    return {name: metrics for name, metrics in slices.items() if metrics.events}


def test_a_model_of_the_last_item_is_as_good_as_the_last_item(evaluation) -> None:
    assert evaluation.model == LastItem.digest
    found = {method: with_events(slices) for method, slices in evaluation.next_item.methods.items()}
    assert found[MODEL] == found["last item"]
    assert found["item-kNN"] != found["last item"]


def test_a_model_that_always_says_the_same_ranks_nothing(evaluation) -> None:
    same = evaluation.propensity.methods[MODEL]
    assert same.auc == 0.5
    share = 1 / (1 + np.exp(3.0))
    assert same.calibration_error >= abs(share - evaluation.propensity.bought_share) - 1e-9
    baseline = evaluation.propensity.methods[ROLLING_BASELINE]
    assert baseline.auc > 0.6
    assert baseline.log_loss < same.log_loss


def test_an_evaluation_gives_the_same_numbers_again_and_without_the_model(evaluation, shop) -> None:
    again = evaluate(shop)
    assert again.model is None
    for name, slices in again.next_item.methods.items():
        assert with_events(slices) == with_events(evaluation.next_item.methods[name])
    assert again.propensity.methods[ROLLING_BASELINE] == evaluation.propensity.methods[ROLLING_BASELINE]


def test_repeats_are_left_out_of_their_slices(evaluation) -> None:
    sizes = [evaluation.next_item.methods["most popular"][name].events for name in SLICES]
    assert sizes[0] > sizes[2] > 0
    assert sizes[1] == sizes[3] == 0, "every generated shopper comes within the first hour"
    assert sizes[2] == pytest.approx(sizes[0] * (1 - evaluation.next_item.repeat_share))
    last = evaluation.next_item.methods["last item"]
    assert last[SLICES[0]].recall >= evaluation.next_item.repeat_share * (1 - evaluation.next_item.cold_share)


def test_a_split_outside_the_log_is_refused(shop) -> None:
    manifest = open_log(shop).manifest
    for split_ms in (manifest.first_ms, manifest.last_ms):
        with pytest.raises(BadInput, match="choose another --test-from"):
            evaluate(shop, split_ms)


def test_a_model_that_learned_from_the_test_is_refused_and_its_end_is_the_default_split(shop) -> None:
    log = open_log(shop)
    until_ms = log.manifest.first_ms + 300 * MINUTE
    model = LastItem(catalogue_of(log))
    model.manifest = SimpleNamespace(trained_on=log_digest(log), metrics={"until_ms": float(until_ms)})
    assert evaluate(shop, None, model).split_ms == until_ms
    with pytest.raises(BadInput, match="learned from this log"):
        evaluate(shop, until_ms - 1, model)


def test_a_model_that_learned_from_the_whole_log_cannot_be_tested_on_it(shop) -> None:
    log = open_log(shop)
    model = LastItem(catalogue_of(log))
    learned = {"until_ms": float(log.manifest.last_ms + 1)}
    model.manifest = SimpleNamespace(trained_on=log_digest(log), metrics=learned)
    with pytest.raises(BadInput, match="the whole of this log: train it with --until"):
        evaluate(shop, None, model)


def test_events_of_a_time_that_the_model_learned_from_are_said_to_be_doubtful(shop, tmp_path) -> None:
    """As if the log had been written again with other partitions: its digest is another, its events are not."""
    log = open_log(shop)
    times = sorted(one.event.event_time_ms for one in applied_events(log, catalogue_of(log)))
    until_ms = times[-20]
    write_artifact(
        tmp_path / "model", replace(parts(), trained_on="another log", metrics={"until_ms": float(until_ms)})
    )
    out = tmp_path / "quality.md"
    words = [str(tmp_path / "model"), "--log", str(shop), "--out", str(out)]
    done = CliRunner().invoke(evaluate_command, words, catch_exceptions=False)
    split_ms = default_split_ms(observe(log, catalogue_of(log)).interactions)
    early = sum(split_ms <= time_ms < until_ms for time_ms in times)
    sentence = f"{early:,} of the tested events lie before {time_of(until_ms)}, where the model's training ended."
    for said in (done.output, out.read_text()):
        assert f"may have learned from the test. {sentence}" in said.replace("**", "")


def test_a_test_behind_what_the_model_learned_from_is_not_doubtful(evaluation) -> None:
    assert evaluation.doubt is None
    assert doubt_of(evaluation) is None


def test_the_command_prints_tables_and_writes_the_page_and_its_diagram(shop, tmp_path) -> None:
    out = tmp_path / "docs" / "quality.md"
    done = CliRunner().invoke(evaluate_command, ["--log", str(shop), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    page = out.read_text()
    assert "`pricetide model evaluate --log log --out quality.md`" in page
    for text in (page, done.output):
        assert [f"Next item, {name}:" in text for name in SLICES] == [True, False, True, False]
    assert "| implicit ALS |" in page
    assert "| logistic regression |" in page
    assert str(tmp_path) not in page
    diagram = ElementTree.fromstring((out.parent / "quality-reliability.svg").read_text())
    circles = [one for one in diagram.iter() if one.tag.endswith("circle")]
    assert len(circles) == BINS + 1


def test_a_log_in_which_nobody_buys_gets_its_next_item_tables_and_a_sentence(shop, tmp_path) -> None:
    log, out = open_log(shop), tmp_path / "quality.md"
    with LogWriter(tmp_path / "log", log.manifest, "jsonl") as writer:
        writer.rows([row for row in log.rows() if row.type != "purchase"])
        writer.catalogue(list(chain.from_iterable(log.catalogue())))
    words = ["--log", str(tmp_path / "log"), "--out", str(out)]
    done = CliRunner().invoke(evaluate_command, words, catch_exceptions=False)
    assert done.exit_code == 0
    for text in (out.read_text(), done.output):
        assert f"Next item, {SLICES[0]}:" in text
        assert "there are no views that ended in a purchase within 30 min" in text
        assert "log-loss" not in text and "reliability" not in text
    assert not list(tmp_path.glob("*.svg"))


def test_the_page_says_how_many_prices_were_not_those_of_the_list(evaluation, shop) -> None:
    log = open_log(shop)
    until_ms = evaluation.until_ms - PURCHASE_WITHIN_MS
    tested = [
        one.event.price != one.item.list_price
        for one in applied_events(log, catalogue_of(log))
        if evaluation.split_ms <= one.event.event_time_ms < until_ms and one.kind != "purchase"
    ]
    assert len(tested) == evaluation.propensity.examples
    assert evaluation.propensity.off_list_share == pytest.approx(np.mean(tested))
    share = f"{np.mean(tested):.2%} of the tested examples were seen at a price other than list"
    assert share in markdown_of(evaluation, "a command", "a diagram")


def test_the_command_takes_an_artifact_as_a_worker_does(shop, tmp_path) -> None:
    digest = write_artifact(tmp_path / "model", parts())
    out = tmp_path / "quality.md"
    done = CliRunner().invoke(
        evaluate_command, [str(tmp_path / "model"), "--log", str(shop), "--out", str(out)], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert f"Model `{digest}`." in out.read_text()
    assert out.read_text().count("| the model |") == 3
    assert "`pricetide model evaluate model --log log --out quality.md`" in out.read_text()


events = st.lists(
    st.tuples(st.sampled_from("uv"), st.sampled_from("ab"), st.sampled_from(range(len(KINDS))), st.integers(0, 90)),
    min_size=1,
    max_size=30,
)


@given(events)
def test_a_label_says_whether_the_user_buys_the_item_in_time(log) -> None:
    users, items, kinds, minutes = zip(*log, strict=True)
    found = purchase_labels(
        np.array([ord(user) for user in users], dtype=np.int32),
        np.array([ord(item) for item in items], dtype=np.int32),
        np.array(kinds, dtype=np.int8),
        np.array(minutes, dtype=np.int64) * MINUTE,
    )
    for place, (user, item, kind, at) in enumerate(log):
        purchases = [later for who, what, how, later in log[place + 1 :] if (who, what, how) == (user, item, PURCHASE)]
        in_time = kind != PURCHASE and bool(purchases) and 0 <= (purchases[0] - at) * MINUTE <= PURCHASE_WITHIN_MS
        assert found[place] == in_time


def test_rolling_features_are_of_the_state_right_after_the_event(shop) -> None:
    log = open_log(shop)
    catalogue = catalogue_of(log)
    observed = observe(log, catalogue)
    seen: dict[str, list] = {}
    for applied in applied_events(log, catalogue):
        values = dict(zip(ROLLING, rolling_features(applied), strict=True))
        before = seen.setdefault(applied.event.user, [])
        assert values["first event"] == float(not before)
        assert np.expm1(values["views, 30 d"]) == pytest.approx(
            sum(one.kind == "view" for one in before) + (applied.kind == "view")
        )
        assert np.expm1(values["price"]) == pytest.approx(applied.event.price)
        before.append(SimpleNamespace(kind=applied.kind))
    assert observed.rolling.shape == (sum(map(len, seen.values())), len(ROLLING))
    assert np.isfinite(observed.rolling).all()


def test_calibration_bins_are_of_equal_mass_and_their_error_is_a_mean() -> None:
    probability = np.linspace(0.0, 0.9, 30)
    bought = np.arange(30) % 3 == 0
    bins = calibration_bins(probability, bought)
    assert [one.examples for one in bins] == [2] * BINS
    assert bins[0].predicted == pytest.approx((probability[0] + probability[1]) / 2)
    assert bins[0].observed == 0.5
    wanted = np.mean([abs(probability[i : i + 2].mean() - bought[i : i + 2].mean()) for i in range(0, 30, 2)])
    assert propensity_metrics(probability, bought).calibration_error == pytest.approx(wanted)


def test_the_logistic_baseline_finds_a_logistic_truth_and_is_calibrated() -> None:
    random = np.random.default_rng(1)
    features = random.normal(3.0, [1.0, 20.0], (20_000, 2)).astype(np.float32)
    truth = 1 / (1 + np.exp(3.0 - (features[:, 0] - 3.0)))
    bought = random.random(20_000) < truth
    learned = RollingBaseline(features[:10_000], bought[:10_000], 1.0).probability(features[10_000:])
    assert np.abs(learned - truth[10_000:]).mean() < 0.01
    assert propensity_metrics(learned, bought[10_000:]).calibration_error < 0.015


def test_by_default_the_last_sixth_of_the_time_is_the_test() -> None:
    events, _ = interactions_of([("u", "a", 7 * MINUTE), ("v", "a", 67 * MINUTE), ("u", "b", 10 * MINUTE)])
    assert default_split_ms(events) == 57 * MINUTE
