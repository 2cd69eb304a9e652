"""A broker that refuses a login says so, and it is the operator who must act: another try would not help."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator

import pytest

from contracts.errors import BadSettings, BrokerUnavailable
from streams.broker import administering, producing, reading
from streams.settings import Settings, load_settings

API_VERSIONS, SASL_HANDSHAKE, SASL_AUTHENTICATE = 18, 17, 36
UNSUPPORTED_VERSION, AUTHENTICATION_FAILED = 35, 58


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


class Doorkeeper(socketserver.StreamRequestHandler):
    """A broker, by the bytes of its protocol, that knows one mechanism, and nobody."""

    def handle(self) -> None:
        while len(size := self.rfile.read(4)) == 4:
            api, version, correlation = struct.unpack(">hhi", self.rfile.read(struct.unpack(">i", size)[0])[:8])
            answer = struct.pack(">i", correlation) + self.answer(api, version)
            self.wfile.write(struct.pack(">i", len(answer)) + answer)

    def answer(self, api: int, version: int) -> bytes:
        if api == API_VERSIONS:
            known = b"".join(
                struct.pack(">hhh", *one) for one in ((API_VERSIONS, 0, 0), (17, 0, 1), (36, 0, 0), (3, 0, 1))
            )
            return struct.pack(">hi", UNSUPPORTED_VERSION if version else 0, 4) + known
        if api == SASL_HANDSHAKE:
            return struct.pack(">hi", 0, 1) + text("PLAIN")
        assert api == SASL_AUTHENTICATE
        return struct.pack(">h", AUTHENTICATION_FAILED) + text("Invalid username or password") + struct.pack(">i", 0)


def entering(port: int, mechanism: str = "PLAIN") -> Settings:
    return load_settings(
        **{
            "kafka.bootstrap_servers": f"127.0.0.1:{port}",
            "kafka.request_timeout_ms": 1_000,
            "kafka.security_protocol": "SASL_PLAINTEXT",
            "kafka.sasl_mechanism": mechanism,
            "kafka.sasl_username": "pricetide",
            "kafka.sasl_password": "hidden",
        }
    )


@pytest.fixture
def door() -> Iterator[int]:
    """The port of a broker that knows nobody."""
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Doorkeeper) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("connecting", [administering, producing, reading], ids=lambda one: one.__name__)
def test_a_wrong_password_is_a_wrong_setting(door, connecting):
    """The trap: kafka-python would try on until its time is over, and a supervisor would start the worker for ever."""
    with pytest.raises(BadSettings) as refused, connecting(entering(door)):
        pass
    assert "Invalid username or password" in str(refused.value)
    assert "Check security_protocol, the SASL settings" in str(refused.value)
    assert "hidden" not in str(refused.value)


def test_so_is_a_mechanism_that_the_broker_does_not_know(door):
    with pytest.raises(BadSettings) as refused, administering(entering(door, "SCRAM-SHA-512")):
        pass
    assert "does not support SCRAM-SHA-512" in str(refused.value)


def test_what_one_login_was_refused_for_is_not_said_of_the_next(door, free_port):
    with pytest.raises(BadSettings), administering(entering(door)):
        pass
    with pytest.raises(BrokerUnavailable), administering(entering(free_port())):
        pass
