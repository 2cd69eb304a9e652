"""The flags that `pricetide produce` recommends give a worker the semantics and topology of the log; files that are none."""

import pytest

from contracts.log import Manifest
from contracts.semantics import Semantics, Topology
from pricetide import main
from streams.log_commands import worker_flags
from streams.settings import load_settings


def settings_of(flags):
    words = flags.replace("--set ", "").split()
    values = dict(word.split("=", 1) for word in words if "=" in word)
    values["semantics.consent_default"] = words[words.index("--consent-default") + 1] == "granted"
    return load_settings(**values)


def test_recommended_flags_give_a_worker_the_logs_semantics_and_topology():
    semantics = Semantics(consent_default=True, epoch=3, skew_max_ms=60_000)
    topology = Topology(partitions=7, consents="all", views="all", clicks="all", purchases="bought")
    settings = settings_of(
        worker_flags(Manifest(semantics=semantics, topology=topology, source="a test", offers="shown"))
    )
    assert settings.engine_semantics == semantics
    assert settings.topics.topology == topology


def test_a_log_with_defaults_needs_but_the_consent_default():
    manifest = Manifest(
        semantics=Semantics(consent_default=False), topology=Topology(partitions=4), source="a test", offers="not_shown"
    )
    assert worker_flags(manifest) == "--consent-default denied"


@pytest.mark.parametrize(
    "arguments", [["digest", "{}/none.jsonl"], ["digest", "{}"], ["generate", "--out", "{}/file/log"]]
)
def test_a_file_that_cannot_be_used_is_a_sentence_that_names_it(tmp_path, capsys, arguments):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as end:
        main([argument.format(tmp_path) for argument in arguments])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith(f"pricetide: {tmp_path}")
    assert said.endswith("Correct the path, or its permissions\n")


def run(*arguments):
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert not end.value.code


def test_a_digest_goes_by_what_a_file_is_and_not_by_its_name(tmp_path, capsys):
    run("generate", "--out", f"{tmp_path}/shop", "--events", "50", "--users", "5")
    run("backtest", f"{tmp_path}/shop", "--out", f"{tmp_path}/prices.parquet")
    (tmp_path / "prices").write_bytes((tmp_path / "prices.parquet").read_bytes())
    capsys.readouterr()
    for name in ("prices", "prices.parquet"):
        run("digest", f"{tmp_path}/{name}")
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_a_file_without_records_has_no_digest(tmp_path, capsys):
    (tmp_path / "none.jsonl").touch()
    with pytest.raises(SystemExit) as end:
        main(["digest", f"{tmp_path}/none.jsonl"])
    assert end.value.code == 2
    assert "has no records" in capsys.readouterr().err
