"""The kill switch as an operator throws it: one record on the policies topic, acknowledged, and what holds after it."""

from __future__ import annotations

import msgspec

from contracts.errors import BadReference
from contracts.policies import KillSwitch, PolicyBook, encode_policy, policy_key
from streams.broker import SCHEMA_HEADER, committed_records, producing, require_topics
from streams.settings import Settings


def throw_kill_switch(settings: Settings, switch: KillSwitch) -> PolicyBook:
    """Publish `switch`, wait for every in-sync replica, and return the book of policies with it.

    Raises:
        BadSettings: there is no policies topic. BrokerUnavailable: the broker did not acknowledge.
    """
    require_topics(settings, [settings.topics.policies])
    with producing(settings) as producer:
        producer.send(
            settings.topics.policies,
            key=policy_key(switch),
            value=encode_policy(switch),
            partition=0,
            headers=[SCHEMA_HEADER],
        ).get(timeout=settings.kafka.request_timeout_ms / 1000)
    return read_policies(settings)


def read_policies(settings: Settings) -> PolicyBook:
    """Return the book of every policy record on the topic now; records that must not be used are passed over."""
    book = PolicyBook()
    for record in committed_records(settings, [settings.topics.policies]):
        try:
            book.apply(record.offset, record.key, record.value)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError, BadReference):
            continue
    return book
