"""The error tree, split by who must act. Does not log, does not exit: the shells do.

PricetideError
├── BadEvent          the producer of an event; the record goes to the dead letters with `code` and `remedy`
├── BadInput          the person at the command line: a log, a file, an argument
├── BadSettings       the operator: settings, topics, partitions, data directory
│   └── BadArtifact   the same, or the modeller: a model that must not be used; the one before keeps serving
├── BadReference      whoever publishes catalogue items and policies
├── BrokerUnavailable the operator's broker, or time: worth another try
└── BrokenInvariant   us: a bug; carries what was seen
"""

from __future__ import annotations


class PricetideError(Exception):
    """Root of the tree. `exit_code` is what the process ends with when nobody handled it (sysexits.h)."""

    exit_code = 70


class BadEvent(PricetideError):
    """A record that cannot be applied. `code` is stable and small, for metrics; `remedy` says what the producer must do."""

    exit_code = 2

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(f"{message}. {remedy}")
        self.code = code
        self.message = message
        self.remedy = remedy


class BadInput(PricetideError):
    """A file or an argument that a person must change."""

    exit_code = 2


class BadSettings(PricetideError):
    """Settings, topics or a data directory that an operator must change; the message says to what."""

    exit_code = 78


class BadArtifact(BadSettings):
    """A model that is damaged, of another release, or not what it says; it is refused before it makes a price."""


class BadReference(PricetideError):
    """A catalogue item or a policy that must not be used; its publisher must send a corrected one."""

    exit_code = 2


UNREADABLE: tuple[type[Exception], ...] = (ValueError, RecursionError)
"""What decoding JSON of somebody else's may raise: msgspec's errors and that of bad UTF-8 are ValueErrors; brackets within
thousands of brackets, also in a field that nobody reads, end in a RecursionError."""
REFUSED: tuple[type[Exception], ...] = (*UNREADABLE, BadReference)
"""What applying a record of catalogue or policies may raise: the record is passed over, and what held before holds on."""


class BrokerUnavailable(PricetideError):
    """The broker does not answer, or another worker has taken over: a supervisor should start the process again."""

    exit_code = 75


class BrokenInvariant(PricetideError):
    """A bug of ours, or a machine that lies. The process ends; nothing is committed."""

    exit_code = 70
