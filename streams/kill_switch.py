"""The kill switch as an operator throws it: one record on the policies topic, acknowledged, and what holds after it.

Takes no turn with other operators (streams.policy_publisher): it must not wait, and cannot collide.
"""

from __future__ import annotations

import time
from contextlib import suppress

from contracts.errors import BadSettings, BrokerUnavailable
from contracts.policies import KillSwitch, PolicyBook, encode_policy, policy_key
from contracts.rules import LearningRule
from streams.broker import SCHEMA_HEADER, producing, require_topics
from streams.policy_log import read_policy_log
from streams.policy_publisher import end_transaction, learner_id, transactional_id
from streams.settings import Settings
from streams.transactions import TRANSACTION_TIMEOUT_MS

HIDDEN_S = 1.0
"""How long the record may be hidden by the transaction of a command that is under way."""


def throw_kill_switch(settings: Settings, switch: KillSwitch) -> PolicyBook:
    """Publish `switch`, wait for every in-sync replica, see that workers can read it, and return the book with it.

    Raises:
        BadSettings: there is no policies topic.
        BrokerUnavailable: the broker did not acknowledge, or somebody's open transaction hides the record.
    """
    require_topics(settings, [settings.topics.policies])
    with producing(settings) as producer:
        sent = producer.send(
            settings.topics.policies,
            key=policy_key(switch),
            value=encode_policy(switch),
            partition=0,
            headers=[SCHEMA_HEADER],
        )
        offset = int(sent.get(timeout=settings.kafka.request_timeout_ms / 1000).offset)
    book = _book_with(settings, offset, HIDDEN_S)
    if book is None:
        _end_open_transactions(settings)
        book = _book_with(settings, offset, HIDDEN_S + TRANSACTION_TIMEOUT_MS / 1000)
    if book is None:
        raise BrokerUnavailable(
            f"The kill switch is on the topic at offset {offset}, but an open transaction before it hides it from workers. It "
            "shows as soon as the broker ends that transaction. Look at `pricetide policy show` until it does"
        )
    return book


def _end_open_transactions(settings: Settings) -> None:
    """Have the broker end what an operator's command or a learner left open as it died; without the right to, time will."""
    learning = [one for one in read_policy_log(settings).book.priced_by() if isinstance(one.rule, LearningRule)]
    for name in (transactional_id(settings), *(learner_id(settings, policy) for policy in learning)):
        with suppress(BadSettings):
            end_transaction(settings, name)


def _book_with(settings: Settings, offset: int, seconds: float) -> PolicyBook | None:
    """Return the book once readers of committed records see the record at `offset`; None if they do not within `seconds`."""
    ends = time.monotonic() + seconds
    while (book := read_policy_log(settings).book).seen <= offset:
        if time.monotonic() > ends:
            return None
    return book
