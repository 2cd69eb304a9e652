"""The flags that `pricetide produce` recommends give a worker the semantics and topology of the log."""

from contracts.log import Manifest
from contracts.semantics import Semantics, Topology
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
