"""Settings: every mistake by its name, no secret in any output, and semantics that a backtest can compare."""

from __future__ import annotations

import ssl

import pytest

from contracts.errors import BadSettings
from contracts.semantics import Semantics, Topology
from streams.settings import CONFIG_VARIABLE, load_settings

SECRET = "s3cr3t-of-the-operator"
SASL = {
    "kafka.security_protocol": "SASL_SSL",
    "kafka.sasl_mechanism": "SCRAM-SHA-512",
    "kafka.sasl_username": "pricetide",
    "kafka.sasl_password": SECRET,
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    monkeypatch.setenv(CONFIG_VARIABLE, "")


def test_a_secret_is_never_printed_but_reaches_the_client():
    settings = load_settings(**SASL)
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings.model_dump())
    assert SECRET not in settings.model_dump_json()
    assert settings.kafka.client()["sasl_plain_password"] == SECRET
    assert isinstance(settings.kafka.client()["ssl_context"], ssl.SSLContext)


def test_a_secret_is_not_in_the_error_about_the_setting_beside_it():
    with pytest.raises(BadSettings) as error:
        load_settings(**(SASL | {"kafka.sasl_mechanism": "KERBEROS"}))
    assert "kafka.sasl_mechanism" in str(error.value)
    assert SECRET not in str(error.value)


def test_a_secret_may_come_from_a_file(tmp_path):
    file = tmp_path / "password"
    file.write_text(SECRET + "\n")
    flags = SASL | {"kafka.sasl_password_file": str(file)}
    del flags["kafka.sasl_password"]
    assert load_settings(**flags).kafka.password == SECRET


@pytest.mark.parametrize("servers", ["kafka", "kafka:9092", "a:1,b-2.example:65535", "127.0.0.1:9092", "[::1]:9092"])
def test_addresses_of_brokers_are_taken_as_they_are(servers):
    assert load_settings(**{"kafka.bootstrap_servers": servers}).kafka.bootstrap_servers == servers


@pytest.fixture
def files(tmp_path):
    (tmp_path / "letter").write_text("no certificate, no key")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    return tmp_path


@pytest.mark.parametrize(
    ("setting", "file"),
    [
        ("kafka.sasl_password_file", "missing"),
        ("kafka.sasl_password_file", "."),
        ("kafka.sasl_password_file", "binary"),
        ("kafka.ssl_ca_file", "missing"),
        ("kafka.ssl_ca_file", "letter"),
        ("kafka.ssl_cert_file", "missing"),
        ("kafka.ssl_cert_file", "letter"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_setting(files, setting, file):
    settings = load_settings(**(SASL | {setting: str(files / file)}))
    with pytest.raises(BadSettings, match=rf"{setting}.*cannot be used \(.*\): correct the path") as error:
        settings.kafka.client()
    assert str(files / file) in str(error.value)
    assert SECRET not in str(error.value)


def test_plain_text_has_no_tls():
    assert "ssl_context" not in load_settings().kafka.client()
    assert load_settings(**{"kafka.security_protocol": "SSL"}).kafka.ssl_context() is not None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"kafka.security_protocol": "SASL_PLAINTEXT"}, "sasl_username is required"),
        ({"kafka.security_protocol": "SASL_SSL", "kafka.sasl_username": "u"}, "sasl_password or sasl_password_file"),
        ({"session_timeout_ms": 5_999}, "session_timeout_ms"),
        ({"dead_letter_bytes_max": 900_000}, "dead_letter_bytes_max"),
        ({"topics.partitions": 5_000}, "topics.partitions"),
        ({"port": 70_000}, "port"),
        ({"log_level": "loud"}, "log_level"),
        ({"kafka.bootstrap": "x"}, "kafka.bootstrap: there is no such setting"),
        ({"kafka": "x", "kafka.compression": "gzip"}, "kafka.compression: kafka was given a value of its own"),
        ({"kafka.bootstrap_servers": ""}, "'' is not HOST:PORT"),
        ({"kafka.bootstrap_servers": "kafka:port"}, "'kafka:port' is not HOST:PORT"),
        ({"kafka.bootstrap_servers": "a:1,,b:2"}, "is not HOST:PORT"),
        ({"topics.views": ""}, "topics.views"),
        ({"topics.views": "all views"}, "topics.views"),
        ({"group": ""}, "group"),
    ],
)
def test_a_wrong_setting_is_named(flags, words):
    with pytest.raises(BadSettings, match=words):
        load_settings(**flags)


@pytest.mark.parametrize(
    ("semantics", "words"),
    [
        ({}, "set semantics.consent_default to true or false"),
        ({"consent_default": "maybe"}, "consent_default"),
        ({"consent_default": True, "epoch": -1}, "epoch"),
        ({"consent_default": True, "skew": 1}, "skew"),
        ({"consent_default": True, "state_ttl_ms": 1}, "state_ttl_ms must cover the longest window"),
    ],
)
def test_wrong_semantics_are_named(semantics, words):
    settings = load_settings(**{f"semantics.{name}": value for name, value in semantics.items()})
    with pytest.raises(BadSettings, match=words):
        _ = settings.engine_semantics


def test_semantics_and_topology_are_the_ones_that_logs_carry(monkeypatch):
    monkeypatch.setenv("PRICETIDE_SEMANTICS__CONSENT_DEFAULT", "false")
    monkeypatch.setenv("PRICETIDE_SEMANTICS__EPOCH", "2")
    settings = load_settings(**{"topics.clicks": "acts", "topics.purchases": "acts", "topics.partitions": 3})
    assert settings.engine_semantics == Semantics(consent_default=False, epoch=2)
    assert settings.topics.topology == Topology(partitions=3, clicks="acts", purchases="acts")
    assert settings.topics.topology.sources == ("consents", "views", "acts")


def test_a_file_that_is_no_toml_is_named(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text("group = \n")
    with pytest.raises(BadSettings, match=r"settings\.toml"):
        load_settings(file)


def test_a_group_of_settings_in_one_variable_is_told_how_to_give_its_fields(monkeypatch):
    monkeypatch.setenv("PRICETIDE_KAFKA", "broker:9092")
    with pytest.raises(BadSettings, match=r'field "kafka".*set its fields one by one'):
        load_settings()
