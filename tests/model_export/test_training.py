"""A run is a function of its options and its log, also when it was interrupted; and it learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra model-export")
torch.set_num_threads(1)

from contracts.errors import BadInput  # noqa: E402 - torch first, or there is nothing to test
from contracts.log import Manifest, open_log  # noqa: E402
from contracts.log_rows import EventRow  # noqa: E402
from contracts.log_writer import LogWriter  # noqa: E402
from contracts.semantics import Semantics, Topology  # noqa: E402
from features.inputs import FEATURE_NAMES  # noqa: E402
from features.signals import SIGNAL_NAMES  # noqa: E402
from model_export.dataset import read_dataset, text_vectors  # noqa: E402
from model_export.network import DEFAULT, UserNetwork  # noqa: E402
from model_export.runs import read_run  # noqa: E402
from model_export.training import Options, Training  # noqa: E402
from model_export.training_run import Work, train_run  # noqa: E402
from model_export.validation import platt_of  # noqa: E402

OPTIONS = Options(epochs=2, negatives=32, seed=4)
START_MS = 1_572_566_400_000


@pytest.fixture(scope="module")
def dataset(shop_log):
    return read_dataset(open_log(shop_log), validation=0.2)


@pytest.fixture(scope="module")
def text(dataset):
    return text_vectors(dataset.items, None)[0]


class Interrupted(Exception):
    pass


def weights(trained):
    return {name: value.numpy() for name, value in trained.learner.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(dataset, text, tmp_path_factory):
    return weights(Training(dataset, text, OPTIONS, tmp_path_factory.mktemp("whole")).run())


@pytest.mark.parametrize("epochs_done", [1, 2, 3])
def test_a_resumed_run_equals_one_that_was_not_interrupted_in_either_stage(
    dataset, text, tmp_path, uninterrupted, epochs_done
):
    told = []

    def tell(line):
        told.append(line)
        if len(told) == epochs_done:
            raise Interrupted

    with pytest.raises(Interrupted):
        Training(dataset, text, OPTIONS, tmp_path, tell).run()
    resumed = Training(dataset, text, OPTIONS, tmp_path).run(resume=True)
    assert same(weights(resumed), uninterrupted)


def test_another_seed_gives_another_network(dataset, text, tmp_path, uninterrupted):
    other = Options(epochs=2, negatives=32, seed=5)
    assert not same(weights(Training(dataset, text, other, tmp_path).run()), uninterrupted)


def test_a_checkpoint_is_neither_overwritten_nor_used_for_other_options(dataset, text, tmp_path):
    def stop(line):
        raise Interrupted

    with pytest.raises(Interrupted):
        Training(dataset, text, OPTIONS, tmp_path, stop).run()
    with pytest.raises(BadInput, match="--resume"):
        Training(dataset, text, OPTIONS, tmp_path).run()
    with pytest.raises(BadInput, match="other options"):
        Training(dataset, text, Options(epochs=3, negatives=32, seed=4), tmp_path).run(resume=True)


@pytest.mark.parametrize(
    "written", [b"not a checkpoint, but a text\n", b"", b"\x80", b"PK\x03\x04"], ids=["text", "nothing", "cut", "zip"]
)
def test_a_file_that_is_no_checkpoint_is_refused_with_what_to_do(dataset, text, tmp_path, written):
    (tmp_path / "checkpoint.pt").write_bytes(written)
    with pytest.raises(BadInput, match=r"checkpoint\.pt is no checkpoint .*: delete it and train again"):
        Training(dataset, text, OPTIONS, tmp_path).run(resume=True)


def test_training_beats_chance_and_early_stopping_keeps_the_best_epoch(dataset, text, tmp_path):
    lines = []
    options = Options(epochs=6, negatives=64, tokens_per_batch=128, learning_rate=5e-3, refit=False)
    trained = Training(dataset, text, options, tmp_path, lines.append).run()
    chance = sum(1 / rank for rank in range(1, 21)) / len(dataset.items.ids)
    assert trained.metrics["mrr"] > 2.5 * chance
    *epochs, head = lines
    assert 1 <= trained.epochs <= len(epochs) <= 6
    assert head.startswith("head:")
    told = [dict(part.rsplit(" ", 1) for part in line.split("; ")[1].split(", ")) for line in epochs]
    scores = [float(metrics["ndcg"]) + float(metrics["ndcg without repeats"]) for metrics in told]
    assert scores[trained.epochs - 1] == max(scores)
    chosen = trained.metrics["ndcg"] + trained.metrics["ndcg_without_repeats"]
    assert chosen >= max(scores) - 1e-3  # how much scores point at recent items makes it no worse


def test_a_run_stops_when_nothing_gets_better(dataset, text, tmp_path):
    lines = []
    still = Options(epochs=6, patience=1, learning_rate=0.0, item_learning_rate=0.0, negatives=8, refit=False)
    Training(dataset, text, still, tmp_path, lines.append).run()
    assert [line.split()[0] for line in lines] == ["epoch", "epoch", "head:"]


def test_the_calibration_is_in_the_network_and_comes_from_the_validation_slice(trained_run):
    _, model = read_run(trained_run)
    trunk, signals, offset = model.network.calibration.tolist()
    assert min(trunk, signals) >= 0
    assert max(trunk, signals) > 0
    assert (trunk, signals, offset) != (1.0, 1.0, 0.0)


@pytest.mark.parametrize(("name", "values"), [("pointing", (1.0, 1.4)), ("returning", (0.0, 3.0))])
def test_how_much_scores_point_at_recent_items_is_chosen_on_the_validation_slice_and_is_in_the_network(
    dataset, text, tmp_path, monkeypatch, name, values
):
    options = Options(epochs=1, negatives=32, seed=4, refit=False)
    monkeypatch.setattr("model_export.training.POINTINGS", (1.0,))
    monkeypatch.setattr("model_export.training.RETURNINGS", (0.0,))
    found = {}
    for value in values:
        monkeypatch.setattr(f"model_export.training.{name.upper()}S", (value,))
        found[value] = Training(dataset, text, options, tmp_path / str(value)).run()
    monkeypatch.setattr(f"model_export.training.{name.upper()}S", values)
    chosen = Training(dataset, text, options, tmp_path / "both").run()
    scores = {at: one.metrics["ndcg"] + one.metrics["ndcg_without_repeats"] for at, one in found.items()}
    best = max(scores, key=scores.__getitem__)
    assert len(set(scores.values())) == len(values)
    assert chosen.metrics == found[best].metrics
    assert getattr(chosen.learner.network, name).item() == pytest.approx(best)


def test_platt_scaling_makes_predictions_match_what_happened():
    random = np.random.default_rng(0)
    logits = random.normal(0, 1, 20_000)
    bought = random.random(20_000) < 1 / (1 + np.exp(-(0.5 * logits - 3)))
    fitted = platt_of(logits, bought)
    assert fitted.scale == pytest.approx(0.5, abs=0.1)
    assert fitted.probability(logits).mean() == pytest.approx(bought.mean(), rel=0.02)


def test_platt_scaling_never_turns_the_order_round():
    logits = np.linspace(-1, 1, 200)
    assert platt_of(logits, logits < 0).scale > 0
    assert platt_of(logits, np.zeros(200, bool)).scale == 1.0


def test_a_finished_run_says_where_its_slope_comes_from_and_is_not_overwritten(trained_run, shop_log):
    run, model = read_run(trained_run)
    assert (run.slope, model.slope, run.slope_value) == ("prior", "prior", 1.5)
    with pytest.raises(BadInput, match="finished run"):
        train_run(trained_run, Work(shop_log, None, 0.2, None), OPTIONS)
    assert not list(trained_run.glob("checkpoint*"))


def short_log(directory, *events):
    """Write a log of views (minute, user, item) that the catalogue knows nothing of."""
    manifest = Manifest(
        semantics=Semantics(consent_default=True), topology=Topology(partitions=1), source="test", offers="not_shown"
    )
    with LogWriter(directory, manifest, "jsonl") as writer:
        writer.rows([
            EventRow(type="view", event_id=f"e{place}", user=user, item=item, event_time_ms=START_MS + 60_000 * at, price=900,
                     currency="USD", market="us", arrival_ms=START_MS + 60_000 * at)
            for place, (at, user, item) in enumerate(events, 1)
        ])  # fmt: skip
    return directory


SHORT = {
    "one item": [(9 * place, "uvw"[place % 3], "a") for place in range(30)],
    "four events": [(0, "u", "a"), (1, "u", "b"), (90, "u", "a"), (100, "u", "b")],
    "nothing but new users at the end": [(0, "u", "a"), (1, "u", "b"), (50, "v", "a")],
}

SAID = {
    "one item": {"ndcg"},
    "four events": {"ndcg", "ndcg_without_repeats"},
    "nothing but new users at the end": set(),
}


@pytest.mark.parametrize("case", SHORT)
def test_of_a_short_log_a_run_says_what_can_be_said_and_is_whole(tmp_path, case):
    log = short_log(tmp_path / "log", *SHORT[case])
    train_run(tmp_path / "run", Work(log, None, 0.2, None), Options(epochs=1, negatives=4, seed=4))
    run, model = read_run(tmp_path / "run")
    assert all(np.isfinite(value) for value in run.metrics.values())
    assert all(torch.isfinite(weight).all() for weight in model.network.state_dict().values())
    said = {"ndcg", "ndcg_without_repeats"} & run.metrics.keys()
    assert said == SAID[case]


def test_a_log_that_teaches_nothing_is_refused(tmp_path):
    log = short_log(tmp_path / "log", (0, "u", "a"), (1, "v", "a"), (10, "w", "a"))
    with pytest.raises(BadInput, match="Nobody has two events"):
        train_run(tmp_path / "run", Work(log, None, 0.2, None), Options(epochs=1, negatives=4))


def test_a_run_that_was_killed_while_it_was_written_is_none_and_is_resumed(tmp_path, monkeypatch):
    work = Work(short_log(tmp_path / "log", *SHORT["four events"]), None, 0.2, None)
    options = Options(epochs=1, negatives=4)
    train_run(tmp_path / "whole", work, options)
    replace = Path.replace

    def killed(self, target):
        if target.name == "run.json":
            raise Interrupted
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(Interrupted):
        train_run(tmp_path / "run", work, options)
    monkeypatch.undo()
    with pytest.raises(BadInput, match="no finished run"):
        read_run(tmp_path / "run")
    train_run(tmp_path / "run", work, options, resume=True)
    for name in ("run.json", "items.json", "model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_prices_that_nobody_randomised_cannot_give_a_slope(shop_log, tmp_path):
    with pytest.raises(BadInput, match="cannot tell the price slope"):
        train_run(tmp_path, Work(shop_log, None, 0.2, None), Options(randomised_prices=True))


def test_a_network_whose_slope_is_learned_does_not_see_prices():
    network = UserNetwork(DEFAULT, sees_prices=False).eval()
    features = torch.rand(1, 4, len(FEATURE_NAMES))
    dearer = features.clone()
    for name in ("log_price", "log_price_over_list"):
        dearer[..., FEATURE_NAMES.index(name)] += 1
    item, kinds = torch.rand(1, 4, DEFAULT.width), torch.zeros(1, 4, dtype=torch.int64)
    signals = torch.rand(1, 4, len(SIGNAL_NAMES))
    with torch.inference_mode():
        logits = [network.history(item, kinds, seen, signals)[1] for seen in (features, dearer)]
    assert torch.equal(*logits)
