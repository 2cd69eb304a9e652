"""Writing to the policies topic by hand: one operator at a time, every record acknowledged by all in-sync replicas.

Two operators who read the same book would both publish the next number of a name. Workers take the first and refuse the
second as a rewrite, but compaction keeps the second: a worker that starts later would price by another policy under the
same name. So every operator's producer has the same transactional id. Who opens one fences whoever opened one before:
what that one has not committed, the broker aborts. Read after opening, and nobody can come in between unnoticed.
Not here: what is published (streams.policy_changes).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kafka import KafkaProducer
from kafka.errors import InvalidProducerEpochError, ProducerFencedError

from contracts.errors import BrokerUnavailable
from contracts.policies import Policy, PolicyRecord, encode_policy, policy_key
from streams.broker import SCHEMA_HEADER, require_topics
from streams.policy_log import REPLACES_HEADER, PolicyLog, read_policy_log, title
from streams.settings import Settings
from streams.transactions import fencing, within


def transactional_id(settings: Settings) -> str:
    """Return what all who write to this policies topic by hand share, whatever their consumer group."""
    return f"{settings.topics.policies}-operator"


def learner_id(settings: Settings, policy: Policy) -> str:
    """Return the transactional id of who writes what `policy` has learned (streams.version_writer), and the group whose offsets
    say how far it has learned.
    """
    return f"{settings.group}-learner-{policy.name}-{policy.number}"


class Publisher:
    """A producer that holds the floor until another operator takes it."""

    def __init__(self, settings: Settings, producer: KafkaProducer) -> None:
        self._settings = settings
        self._producer = producer
        self._seen = 0
        """Offset after the last record that `read` has returned."""

    def read(self) -> PolicyLog:
        """Return what lies on the topic now."""
        log = read_policy_log(self._settings)
        self._seen = log.book.seen
        return log

    def publish(self, record: PolicyRecord, replaces: str | None = None) -> int:
        """Commit one record and return its offset.

        Args:
            record: what to publish.
            replaces: of what makes a policy current, the version that was before.

        Raises:
            BrokerUnavailable: another operator took the floor; the message says what that one did.
        """
        timeout_s = self._settings.kafka.request_timeout_ms / 1000
        headers = [SCHEMA_HEADER] if replaces is None else [SCHEMA_HEADER, (REPLACES_HEADER, replaces.encode())]
        try:
            self._producer.begin_transaction()
            sent = self._producer.send(
                self._settings.topics.policies,
                key=policy_key(record),
                value=encode_policy(record),
                partition=0,
                headers=headers,
            )
            offset = int(sent.get(timeout=timeout_s).offset)
            within(timeout_s, self._producer.commit_transaction)
        except (ProducerFencedError, InvalidProducerEpochError):
            raise self._overtaken(record) from None
        return offset

    def _overtaken(self, record: PolicyRecord) -> BrokerUnavailable:
        news = [entry.title for entry in read_policy_log(self._settings).entries if entry.offset >= self._seen]
        return BrokerUnavailable(
            f"Another operator is changing the policies at this moment, and this was not published: {title(record)}. "
            f"New on the topic: {'; '.join(news) or 'nothing yet'}. "
            "Look at `pricetide policy history`, then try again"
        )


@contextmanager
def publishing(settings: Settings) -> Iterator[Publisher]:
    """Take the floor on the policies topic: from now on, whoever had it publishes nothing.

    Raises:
        BadSettings: there is no such topic, or the broker refuses us. BrokerUnavailable: it does not answer.
    """
    require_topics(settings, [settings.topics.policies])
    with fencing(settings, transactional_id(settings)) as producer:
        yield Publisher(settings, producer)


def end_transaction(settings: Settings, name: str) -> None:
    """Have the broker end what the producer with the transactional id `name` left open; if it lives, it is fenced.

    Raises:
        BadSettings: the broker refuses us. BrokerUnavailable: it does not answer.
    """
    with fencing(settings, name):
        pass
