"""A backtest with a real artifact: it stands behind the prices, whatever the batches; a broken one is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from backtest.commands import backtest
from backtest.models import open_models
from backtest.shoppers import generate_log
from contracts.errors import BadArtifact, BadSettings
from contracts.semantics import Semantics, Topology
from features.artifact import write_artifact
from tests.features.models import parts


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    write_artifact(directory, parts())
    return directory


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shop") / "log"
    generate_log(directory, users=30, events=600, seed=5, topology=Topology(partitions=2), file_format="jsonl")
    return directory


def summary_of(*words):
    result = CliRunner().invoke(backtest, [*map(str, words), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_model_stands_behind_every_decision_and_batches_change_no_byte(log, artifact, tmp_path):
    import pyarrow.parquet as pq

    tables = []
    for batch in (1, 7, 2_048):
        summary = summary_of(log, "--model", artifact, "--batch", batch, "--decisions", tmp_path / f"{batch}.parquet")
        (digest,) = open_models([artifact], Semantics(consent_default=True))
        assert summary["models"] == {digest: summary["decisions"]}
        tables.append(
            pq.read_table(tmp_path / f"{batch}.parquet", columns=["partition", "record", "preference", "kind"])
        )
    by_partition = [table.sort_by("partition") for table in tables]
    assert by_partition[0].select(["record"]).equals(by_partition[1].select(["record"]))
    assert by_partition[0].select(["record"]).equals(by_partition[2].select(["record"]))
    preferences = [value for value in tables[0]["preference"].to_pylist() if value is not None]
    assert len(set(preferences)) > 100
    assert 0.0 < min(preferences) <= max(preferences) < 1.0


def test_a_backtest_without_a_model_says_so_and_needs_no_runtime(log):
    program = "import sys; sys.modules['onnxruntime'] = None; from backtest.commands import backtest; backtest()"
    done = subprocess.run([sys.executable, "-c", program, str(log), "--json"], capture_output=True, check=True)
    assert json.loads(done.stdout)["models"] == {}


def test_a_model_without_its_runtime_is_refused_with_what_to_install(artifact, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BadSettings, match="pip install 'pricetide\\[encoder\\]'"):
        open_models([artifact], Semantics(consent_default=True))


def test_a_directory_without_an_artifact_is_refused(log, tmp_path):
    with pytest.raises(BadArtifact, match=r"manifest\.json"):
        CliRunner().invoke(backtest, [str(log), "--model", str(tmp_path)], catch_exceptions=False)


def test_a_log_that_keeps_less_history_than_the_model_needs_is_refused(artifact):
    with pytest.raises(BadSettings, match=r"semantics\.history_events_max to"):
        open_models([artifact], Semantics(consent_default=True, history_events_max=8))
