"""What the doctor sees without a broker: settings and the data directory."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from kafka.errors import CoordinatorNotAvailableError, NotCoordinatorError

from streams import doctor
from streams.doctor import LIMITS, _committed, _data_dir, _limits, _out_of_range, _semantics, _transactions, examine
from streams.settings import load_settings

HOLD = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"


def test_without_a_broker_the_rest_is_still_examined(free_port, tmp_path):
    settings = load_settings(
        **{
            "kafka.bootstrap_servers": f"127.0.0.1:{free_port()}",
            "kafka.request_timeout_ms": 1_000,
            "data_dir": tmp_path / "new" / "data",
        }
    )
    found = {finding.subject: finding for finding in examine(settings)}
    assert "consent_default" in found["settings"].remedy
    assert found[f"data directory {settings.data_dir}"].level == "ok"
    assert (found["broker"].level, found["broker"].remedy[:5]) == ("wrong", "Check")


def test_a_variable_that_is_named_like_a_setting_and_is_none_is_a_warning(monkeypatch):
    """Nothing refuses it: Kubernetes sets some of its own. But a mistaken name must not go unnoticed either."""
    for name in ("PRICETIDE_GRUOP", "PRICETIDE_GROUP", "PRICETIDE_CONFIG", "PRICETIDE_KAFKA__COMPRESSION"):
        monkeypatch.setenv(name, "gzip" if name.endswith("COMPRESSION") else "")
    monkeypatch.setenv("PRICETIDE_GROUP", "mine")
    settings = load_settings(**{"semantics.consent_default": True})
    found = [finding for finding in _semantics(settings) if finding.subject == "environment"]
    assert [(one.level, "PRICETIDE_GRUOP" in one.message, "_GROUP" in one.message) for one in found] == [
        ("warning", True, False)
    ]


def test_a_store_that_another_process_holds_is_seen(tmp_path):
    (tmp_path / "0").mkdir()
    lock = tmp_path / "0" / "LOCK"
    lock.touch()
    assert [finding.level for finding in _data_dir(tmp_path)] == ["ok"]
    with subprocess.Popen([sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        findings = list(_data_dir(tmp_path))
        holder.stdin.close()
    assert [finding.level for finding in findings] == ["warning"]
    assert "a running process holds the stores 0" in findings[0].message


def test_a_directory_that_takes_no_files_is_wrong_whatever_its_permissions():
    assert [finding.level for finding in _data_dir(Path("/proc/nowhere"))] == ["wrong"]


def test_a_quota_that_is_used_up_is_no_matter_of_permissions_alone(tmp_path, monkeypatch):
    def refused(**_: object) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(doctor, "TemporaryFile", refused)
    (finding,) = _data_dir(tmp_path)
    assert (finding.level, "quota" in finding.remedy) == ("wrong", True)


def test_a_file_in_the_place_of_the_directory_is_wrong(tmp_path):
    (tmp_path / "data").touch()
    assert [finding.level for finding in _data_dir(tmp_path / "data")] == ["wrong"]


def test_a_transaction_log_that_wants_more_brokers_than_there_are_is_wrong():
    configs = {
        "transaction.state.log.replication.factor": "3",
        "transaction.state.log.min.isr": "2",
        "transaction.max.timeout.ms": "900000",
    }
    assert [finding.level for finding in _transactions(configs, 1, load_settings())] == ["wrong"]
    assert [finding.level for finding in _transactions(configs, 3, load_settings())] == ["ok"]


def test_a_broker_that_does_not_tell_its_limits_is_a_warning_that_names_them():
    """Hosted clusters keep some of them to themselves."""
    told = dict.fromkeys(LIMITS, "3") | {"transaction.max.timeout.ms": None}
    (finding,) = _limits(told, 3, load_settings())
    assert (finding.level, finding.message) == ("warning", "does not tell transaction.max.timeout.ms")
    assert "transaction_timeout_ms" in finding.remedy


@pytest.mark.parametrize(
    ("offset", "begin", "end", "sentence"),
    [
        (18, 0, 17, "the topic was recreated"),
        (3, 4, 17, "retention removed events"),
        (0, 0, -1, "a partition that no longer exists"),
    ],
)
def test_committed_offsets_outside_of_the_log_are_wrong(offset, begin, end, sentence):
    finding = _out_of_range("group g", "views/0", offset, begin, end)
    assert finding.level == "wrong"
    assert sentence in finding.message


@pytest.mark.parametrize(("offset", "begin", "end"), [(0, 0, 0), (4, 4, 17), (17, 4, 17)])
def test_committed_offsets_within_the_log_are_well(offset, begin, end):
    assert _out_of_range("group g", "views/0", offset, begin, end) is None


def test_a_broker_whose_coordinator_is_not_settled_yet_is_asked_again():
    """A fresh one makes its offsets topic when it is asked for the first time."""
    answers: list = [CoordinatorNotAvailableError(), NotCoordinatorError(), {"g": {}}]

    class Admin:
        def list_group_offsets(self, group):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    assert _committed(Admin(), "g") == {}
    assert answers == []


def test_of_a_broker_that_does_not_answer_the_remedy_names_the_credentials_that_it_would_not_take(free_port):
    """A broker that speaks another security protocol does not answer; one that refuses a password does (test_broker)."""
    flags = {
        "kafka.bootstrap_servers": f"127.0.0.1:{free_port()}",
        "kafka.request_timeout_ms": 1_000,
        "kafka.security_protocol": "SASL_PLAINTEXT",
        "kafka.sasl_username": "u",
        "kafka.sasl_password": "hidden",
    }
    (finding,) = (one for one in examine(load_settings(**flags)) if one.subject == "broker")
    assert "knows the user, the password and the mechanism" in finding.remedy
    assert "hidden" not in finding.message + finding.remedy
